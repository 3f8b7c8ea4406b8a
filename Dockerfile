# The whole node in one image, or one role a container with another command:
#   docker build -t dicomnode .
#   docker run --init -p 11112:11112 -v dicomnode:/var/lib/dicomnode \
#     -v ./dicomnode.yaml:/etc/dicomnode/dicomnode.yaml:ro dicomnode
# In a container the configuration needs `node.bind: 0.0.0.0`, and a `node.id` that stays the same
# when the container is replaced. See docs/install.md.

FROM python:3.11-slim AS builder
# work,web,postgres: everything. web,postgres: all but work, without torch.
ARG EXTRAS=work,web,postgres
# Builds of torch for the CPU; https://pypi.org/simple has those for CUDA.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PATH=/opt/dicomnode/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
RUN python -m venv /opt/dicomnode
# torch first, as constraints.txt pins it, and in a layer of its own: it is the largest by far.
COPY constraints.txt ./
RUN case ",$EXTRAS," in *,work,*) \
      pip install --constraint constraints.txt --extra-index-url "$TORCH_INDEX" torch ;; \
    esac
COPY pyproject.toml README.md LICENSE ./
COPY dicomnode dicomnode
COPY inference inference
RUN pip install --constraint constraints.txt --extra-index-url "$TORCH_INDEX" ".[$EXTRAS]"

FROM python:3.11-slim
RUN groupadd --system --gid 10001 dicomnode \
    && useradd --system --uid 10001 --gid 10001 --home-dir /var/lib/dicomnode --shell /usr/sbin/nologin dicomnode \
    && install -d -o dicomnode -g dicomnode -m 0700 /var/lib/dicomnode
COPY --from=builder /opt/dicomnode /opt/dicomnode
# DICOMNODE_ROLES: what this container has to run to count as healthy.
ENV PATH=/opt/dicomnode/bin:$PATH \
    STATE_DIRECTORY=/var/lib/dicomnode \
    DICOMNODE_CONFIG=/etc/dicomnode/dicomnode.yaml \
    DICOMNODE_ROLES="receive tick work send web"
# By number: Kubernetes can tell that this is not root.
USER 10001:10001
VOLUME /var/lib/dicomnode
EXPOSE 11112
# Every role gives a sign of life in the ledger every few seconds; silent is who gave none for 30.
HEALTHCHECK --interval=30s --timeout=20s --start-period=60s CMD ["dicomnode", "health"]
ENTRYPOINT ["dicomnode"]
CMD ["run", "/etc/dicomnode/dicomnode.yaml"]
