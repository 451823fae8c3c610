# syntax=docker/dockerfile:1
#
# cognito-authz: one static program, certificates of the usual authorities, and nothing else. Build it with
#
#   docker buildx build --platform linux/amd64,linux/arm64 --build-arg REVISION="$(git rev-parse HEAD)" .
#
# deploy/image/README.md says what is in it, how to run it, and which part of this file is tested how.

# Compiles on the builder's own architecture for both (no emulation). Debian 12, for the glibc that is linked in.
FROM --platform=$BUILDPLATFORM rust:1.95.0-slim-bookworm@sha256:d7482085ff5b415f84dba5647ae71606650bdef00db7aeb69f4b3d170c3e4082 AS build
ARG TARGETARCH
# The C library is linked in, so it is the newest that Debian has, whatever the day of the image above. arm64 takes its
# own from there, too: what Debian packages for cross compilers gets no security updates. Python lists what is in the
# program (deploy/image/third_party.py). No versions: Debian's mirrors keep the last only. $packages is several.
# hadolint ignore=DL3008,SC2086
RUN set -eu; \
    own=$(dpkg --print-architecture); \
    packages="python3 libc6-dev"; \
    if [ "$TARGETARCH" != "$own" ]; then \
        case $TARGETARCH in amd64) machine=x86_64 gcc=gcc-x86-64-linux-gnu ;; *) machine=aarch64 gcc=gcc-aarch64-linux-gnu ;; esac; \
        dpkg --add-architecture "$TARGETARCH"; \
        packages="$packages $gcc libc6-dev:$TARGETARCH"; \
        rustup target add "$machine-unknown-linux-gnu"; \
    fi; \
    apt-get update; \
    apt-get install -y --no-install-recommends $packages; \
    rm -rf /var/lib/apt/lists/*
WORKDIR /src
# Set by the builder when it is told to (--build-arg SOURCE_DATE_EPOCH), for images that come out the same.
ARG SOURCE_DATE_EPOCH
# Commit that --version and the metric cognito_authz_build_info show.
ARG REVISION=unknown
# The sources are mounted, not copied; .dockerignore says what they are. What cargo has downloaded and compiled stays on
# the builder, for each architecture by itself.
RUN --mount=type=bind,target=/src \
    --mount=type=cache,id=cognito-authz-registry-$TARGETARCH,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,id=cognito-authz-target-$TARGETARCH,target=/target,sharing=locked \
    CARGO_TARGET_DIR=/target COGNITO_AUTHZ_REVISION=$REVISION deploy/image/build /out

# Certificates, /etc/passwd, time zones; no shell, no libraries. `nonroot` of 2026-08-26, both architectures.
FROM gcr.io/distroless/static-debian12:nonroot@sha256:afa5c872c891853ca7fcf1f12c3edb23f7eeef36189728842dd51042ff57f7ab
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="cognito-authz" \
      org.opencontainers.image.description="Envoy external authorization (ext_authz) for Amazon Cognito user pools" \
      org.opencontainers.image.url="https://github.com/cognito-authz/cognito-authz" \
      org.opencontainers.image.source="https://github.com/cognito-authz/cognito-authz" \
      org.opencontainers.image.documentation="https://github.com/cognito-authz/cognito-authz/blob/main/README.md" \
      org.opencontainers.image.vendor="cognito-authz" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.base.name="gcr.io/distroless/static-debian12:nonroot"
# Owned by root, and not writable: whoever takes the process over cannot change it.
COPY --from=build /out/licenses /licenses
COPY --from=build --chmod=0555 /out/cognito-authz /cognito-authz
# `nonroot` as numbers, or Kubernetes cannot tell that it is not root (runAsNonRoot).
USER 65532:65532
# gRPC, operators, account API. They are where --grpc-listen, --admin-listen and --account-listen put them: by default
# on loopback, which no other container reaches.
EXPOSE 9191 9190 9192
# Docker and Compose ask this; Kubernetes has probes of its own. With another --admin-listen, give it as --admin.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["/cognito-authz", "healthcheck"]
ENTRYPOINT ["/cognito-authz"]
