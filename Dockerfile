# Towpath in an image of its own: one static program, the certificates and time zones it needs, and nothing else; no shell, no root.
#
#   docker build -t towpath .                       with the transform `sql`
#   docker build -t towpath:light --target light .  without, a third as large
#   docker build -t towpath-simulate --target simulate .
#
# docs/containers.md says how to run it. BuildKit is needed, for the caches.

# The newest of the compiler in rust-toolchain.toml, held by its digest.
FROM rust:1.95.0-slim-bookworm@sha256:d7482085ff5b415f84dba5647ae71606650bdef00db7aeb69f4b3d170c3e4082 AS source
# The toolchain file asks for formatter and linter as well, which would be fetched. What is linked statically runs without a C library in the
# image; the target is named below, because only then do these flags spare the programs that run while building.
ENV RUSTUP_TOOLCHAIN=1.95.0 \
    RUSTFLAGS="-C target-feature=+crt-static" \
    CARGO_INCREMENTAL=0 \
    CARGO_PROFILE_DIST_STRIP=symbols
WORKDIR /src
COPY . .

FROM source AS build-full
RUN --mount=type=cache,id=towpath-registry,target=/usr/local/cargo/registry \
    --mount=type=cache,id=towpath-target,target=/src/target,sharing=locked \
    target="$(rustc --print host-tuple)" \
    && cargo build --locked --profile dist --target "$target" --package towpath --bin towpath --features sql \
    && install -D "target/$target/dist/towpath" /out/towpath

FROM source AS build-light
RUN --mount=type=cache,id=towpath-registry,target=/usr/local/cargo/registry \
    --mount=type=cache,id=towpath-target,target=/src/target,sharing=locked \
    target="$(rustc --print host-tuple)" \
    && cargo build --locked --profile dist --target "$target" --package towpath --bin towpath --no-default-features \
    && install -D "target/$target/dist/towpath" /out/towpath

FROM source AS build-simulate
RUN --mount=type=cache,id=towpath-registry,target=/usr/local/cargo/registry \
    --mount=type=cache,id=towpath-target,target=/src/target,sharing=locked \
    target="$(rustc --print host-tuple)" \
    && cargo build --locked --release --target "$target" --package towpath-testkit --bin towpath-simulate \
    && install -D "target/$target/release/towpath-simulate" /out/towpath-simulate

# What a static program still reads from its machine.
FROM source AS root
RUN install -D --mode=0644 /etc/ssl/certs/ca-certificates.crt /root-fs/etc/ssl/certs/ca-certificates.crt \
    && install -d /root-fs/usr/share /root-fs/etc/towpath \
    && test -f /usr/share/zoneinfo/Europe/Berlin \
    && cp -a /usr/share/zoneinfo /root-fs/usr/share/zoneinfo \
    # The same zones twice more, once with leap seconds.
    && rm -rf /root-fs/usr/share/zoneinfo/posix /root-fs/usr/share/zoneinfo/right \
    && echo 'hosts: files dns' > /root-fs/etc/nsswitch.conf \
    && echo 'towpath:x:65532:65532::/var/lib/towpath:/sbin/nologin' > /root-fs/etc/passwd \
    && echo 'towpath:x:65532:' > /root-fs/etc/group \
    && install -d --mode=1777 /root-fs/tmp /root-fs/var/tmp \
    && install -d --mode=0750 --owner=65532 --group=65532 /root-fs/var/lib/towpath

FROM scratch AS base
COPY --from=root /root-fs/ /
# The state (what has been done, dead letters) outlives the container in a volume. What does not fit into memory goes to the other one, on disk:
# a tmpfs would count as memory.
ENV TOWPATH_STATE_DIR=/var/lib/towpath/state \
    TMPDIR=/var/tmp
VOLUME ["/var/lib/towpath", "/var/tmp"]
# Relative paths of a pipeline begin here.
WORKDIR /var/lib/towpath
USER 65532:65532
# It is asked to end, comes to a commit (`drain: 25s`), and ends: give it more than that before it is killed.
STOPSIGNAL SIGTERM
LABEL org.opencontainers.image.title="towpath" \
      org.opencontainers.image.description="Hauls rows from old and fragile systems into a database." \
      org.opencontainers.image.licenses="Apache-2.0"

FROM base AS simulate
COPY --from=build-simulate /out/towpath-simulate /usr/local/bin/towpath-simulate
ENTRYPOINT ["/usr/local/bin/towpath-simulate"]
CMD ["--help"]

FROM base AS light
COPY --from=build-light /out/towpath /usr/local/bin/towpath
ENTRYPOINT ["/usr/local/bin/towpath"]
CMD ["--help"]

# No HEALTHCHECK: a process that hangs is found by its own watchdog, one that dies by its restart policy, and a pipeline that fails says so in
# `towpath status`; to restart the container would mend none of them.
FROM base AS full
COPY --from=build-full /out/towpath /usr/local/bin/towpath
ENTRYPOINT ["/usr/local/bin/towpath"]
CMD ["--help"]
