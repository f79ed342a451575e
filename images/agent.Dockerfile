# The agent, which holds its BPF programs. `make images` builds it; by hand, where images can be pulled:
# docker build -f images/agent.Dockerfile .
#
# BUILDER compiles, BASE is what the program runs on: it needs the C library and nothing else. Where nothing can be pulled,
# scripts/images.sh makes both of Debian's packages and compiles on the host; PREBUILT says so.
ARG BUILDER=rust:1.95-bookworm
ARG BASE=debian:bookworm-slim

FROM ${BUILDER} AS build
ARG PREBUILT=
WORKDIR /src
COPY . .
RUN ["sh", "images/build.sh", "maplatency-agent"]

FROM ${BASE}
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title="maplatency-agent" \
      org.opencontainers.image.description="Measures how long operations on BPF maps take on a node" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /out/sbom.cdx.json /sbom.cdx.json
# The last layer: it holds the program alone, and is the same for every build of a commit.
COPY --from=build /out/maplatency-agent /maplatency-agent
# Capabilities of a container are effective for uid 0 only.
USER 0:0
ENTRYPOINT ["/maplatency-agent"]
