"""OHIF's ready build beside an Orthanc's DICOMweb, on one loopback port and so of one origin.

`python tests/viewer_site.py ORTHANC-HTTP-PORT PORT` serves it until it is ended.
"""

from __future__ import annotations

import json
import mimetypes
import sys
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HOST = "127.0.0.1"
OHIF = Path(__file__).parent / "viewers/ohif/package/dist"
"""`make ohif` and `make test-viewer` put it there."""
DICOM_WEB = "/dicom-web"
SECONDS = 60
CONFIG = {
    "routerBasename": "/",
    "extensions": [],
    "modes": [],
    "showStudyList": True,
    "showLoadingIndicator": True,
    "maxNumberOfWebWorkers": 2,
    "strictZSpacingForVolumeViewport": True,
    "investigationalUseDialog": {"option": "never"},  # it would lie over the images
    "defaultDataSourceName": "dicomweb",
    "dataSources": [
        {
            "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
            "sourceName": "dicomweb",
            "configuration": {
                "friendlyName": "Orthanc",
                "name": "orthanc",
                "qidoRoot": DICOM_WEB,
                "wadoRoot": DICOM_WEB,
                "wadoUriRoot": "/wado",
                "qidoSupportsIncludeField": False,
                "imageRendering": "wadors",
                "thumbnailRendering": "wadors",
                "enableStudyLazyLoad": True,
                "supportsFuzzyMatching": False,
                "supportsWildcard": True,
                "omitQuotationForMultipartRequest": True,
                "bulkDataURI": {"enabled": True},
            },
        }
    ],
}
"""As a site would write it for its own archive; all else is OHIF's default."""


class ViewerSite:
    """Serves the viewer, and passes on what goes to the archive.

    Args:
        archive_port: Orthanc's of HTTP.
        port: where it serves; 0: any that is free.
    """

    def __init__(self, archive_port: int, port: int = 0) -> None:
        handler = type("Handler", (_Handler,), {"archive_port": archive_port})
        self._server = ThreadingHTTPServer((HOST, port), handler)
        self.url = f"http://{HOST}:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> ViewerSite:
        self._thread.start()
        return self

    def serve(self) -> None:
        """Wait until it is ended."""
        self._thread.join()

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    archive_port = 0

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        pass

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith(f"{DICOM_WEB}/"):
            self._answer(*self._from_archive())
        elif path == "/app-config.js":
            text = f"window.config = {json.dumps(CONFIG)};"
            self._answer(200, text.encode(), "text/javascript")
        else:
            file = OHIF / path.lstrip("/")
            if not file.is_file():  # a page of the application, which is one page
                file = OHIF / "index.html"
            kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
            self._answer(200, file.read_bytes(), kind)

    def _from_archive(self) -> tuple[int, bytes, str]:
        own = self.headers["Host"]
        headers = {"Host": own, "Forwarded": f"host={own};proto=http"}
        if "Accept" in self.headers:
            headers["Accept"] = self.headers["Accept"]
        url = f"http://{HOST}:{self.archive_port}{self.path}"
        request = urllib.request.Request(url, headers=headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=SECONDS) as answer:
                return answer.status, answer.read(), answer.headers["Content-Type"]
        except urllib.error.HTTPError as error:
            return error.code, error.read(), error.headers["Content-Type"] or "text/plain"

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        # Cross-origin isolation: its workers share memory.
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    with ViewerSite(int(sys.argv[1]), int(sys.argv[2])) as served:
        sys.stdout.write(f"OHIF: {served.url}\n")
        sys.stdout.flush()
        served.serve()
