# The operator. `make images` builds it; by hand, where images can be pulled: docker build -f images/operator.Dockerfile .
#
# BUILDER compiles, BASE is what the program runs on: it needs the C library and nothing else. Where nothing can be pulled,
# scripts/images.sh makes both of Debian's packages and compiles on the host; PREBUILT says so.
ARG BUILDER=rust:1.95-bookworm
ARG BASE=debian:bookworm-slim

FROM ${BUILDER} AS build
ARG PREBUILT=
WORKDIR /src
COPY . .
RUN ["sh", "images/build.sh", "maplatency-operator"]

FROM ${BASE}
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title="maplatency-operator" \
      org.opencontainers.image.description="Places agents, merges what they measure, writes the status of MapLatencyProbes" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /out/sbom.cdx.json /sbom.cdx.json
# The last layer: it holds the program alone, and is the same for every build of a commit.
COPY --from=build /out/maplatency-operator /maplatency-operator
# Numbers, since the base need not know names.
USER 65532:65532
ENTRYPOINT ["/maplatency-operator"]
