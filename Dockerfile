# The image of zoneward: one static executable, and the certificates of public authorities. No image is built by the tests, which
# run such an executable in an empty root instead (tests/e2e). Build it at the top of the repository: `make image`.
FROM rust:1.94-bookworm AS build
WORKDIR /src
COPY . .
# Static by glibc, which holds its own resolver (2.34 or later): no C library, shell or loader is in the image.
RUN cargo rustc --locked --release --bin zoneward -- -C target-feature=+crt-static

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /src/target/release/zoneward /zoneward
COPY --from=build /src/LICENSE /LICENSE
USER 65532:65532
EXPOSE 9900
ENTRYPOINT ["/zoneward"]
CMD ["run"]
