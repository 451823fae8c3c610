# syntax=docker/dockerfile:1
#
# Image of cognito-authz: one static program and the usual CA certificates. Build it with
#
#   docker buildx build --platform linux/amd64,linux/arm64 --build-arg REVISION="$(git rev-parse HEAD)" .
#
# deploy/image/README.md describes its contents, how to run it, and how each part of this file is tested.

# Cross-compiles on the builder's own architecture, without emulation. The program links the glibc of Debian 12.
FROM --platform=$BUILDPLATFORM rust:1.95.0-slim-bookworm@sha256:d7482085ff5b415f84dba5647ae71606650bdef00db7aeb69f4b3d170c3e4082 AS build
ARG TARGETARCH
# Installs the newest C library of Debian 12, whatever the date of the image above, because it becomes part of the
# program. For another architecture it installs that architecture's libc6-dev, because Debian's cross-compiler packages
# get no security updates. Python lists the program's third-party code (deploy/image/third_party.py).
# Ignored rules: versions are not pinned, because Debian's mirrors keep only the last one; $packages is a list.
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
# For reproducible images, set with --build-arg SOURCE_DATE_EPOCH.
ARG SOURCE_DATE_EPOCH
# Commit shown by --version and by the metric cognito_authz_build_info.
ARG REVISION=unknown
# The sources are mounted instead of copied; .dockerignore selects them. The builder caches cargo's downloads and build
# results per architecture.
RUN --mount=type=bind,target=/src \
    --mount=type=cache,id=cognito-authz-registry-$TARGETARCH,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,id=cognito-authz-target-$TARGETARCH,target=/target,sharing=locked \
    CARGO_TARGET_DIR=/target COGNITO_AUTHZ_REVISION=$REVISION deploy/image/build /out

# The files of the build stage alone, for the archives of a release: --target files --output type=local,dest=DIRECTORY.
FROM scratch AS files
COPY --from=build /out /

# Contains CA certificates, /etc/passwd and time zones, but no shell and no libraries. Tag `nonroot` of 2026-08-26, for
# both architectures.
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
# Owned by root and read-only, so that a compromised process cannot change them.
COPY --from=build /out/licenses /licenses
COPY --from=build --chmod=0555 /out/cognito-authz /cognito-authz
# User `nonroot` by number: Kubernetes' runAsNonRoot does not accept names.
USER 65532:65532
# Ports for gRPC, admin and account API. --grpc-listen, --admin-listen and --account-listen set the addresses; the
# default is loopback, which other containers cannot reach.
EXPOSE 9191 9190 9192
# For Docker and Compose; Kubernetes uses its own probes. If you change --admin-listen, override this command and pass
# the address with --admin.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["/cognito-authz", "healthcheck"]
ENTRYPOINT ["/cognito-authz"]
