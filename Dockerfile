# pgslice as a small image with a user of its own: docker build -t pgslice .
# Needs BuildKit, which current Docker builds with. What is copied is what .dockerignore lets through.

FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin pgslice && cp target/release/pgslice /usr/local/bin/

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
# A volume that is empty when it is first mounted at /srv/feeds takes its owner from here.
RUN useradd --system --uid 10001 --user-group pgslice && install -d -o pgslice -g pgslice /srv/feeds
COPY --from=build /usr/local/bin/pgslice /usr/local/bin/
USER pgslice
WORKDIR /etc/pgslice
ENTRYPOINT ["pgslice"]
CMD ["--help"]
