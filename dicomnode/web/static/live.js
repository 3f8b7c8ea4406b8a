// Keeps what is marked `data-live` up to date: fetches the same page and exchanges that part, when it
// has changed, is looked at, and nobody is in the midst of using it. Without scripts the page works too.
"use strict";
(() => {
  const part = document.querySelector("[data-live]");
  if (!part) return;
  const every = Number(part.dataset.live) * 1000;
  let failed = 0;

  const isUsed = () => part.contains(document.activeElement) || part.querySelector("details[open]");

  const refresh = async () => {
    if (document.hidden || isUsed()) return;
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" }, redirect: "manual" });
      if (answer.type === "opaqueredirect") return void location.reload(); // the session is over
      if (!answer.ok) throw new Error(String(answer.status));
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.getElementById(part.id);
      if (fresh && !isUsed() && fresh.innerHTML !== part.innerHTML) {
        part.replaceChildren(...fresh.childNodes);
      }
      failed = 0;
    } catch {
      failed += 1;
    }
    part.classList.toggle("stale", failed > 2);
  };
  setInterval(refresh, every);
  document.addEventListener("visibilitychange", refresh);
})();
