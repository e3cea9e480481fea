# docs/integrations.md says how to build it with a torch that has no CUDA, and how to run it without a network.
FROM python:3.11-slim AS build
# Where pip looks besides its default index; it reads the variable by itself.
ARG PIP_EXTRA_INDEX_URL=
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN python -m venv /opt/lmsanitator \
    && /opt/lmsanitator/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt ".[serve]"

FROM python:3.11-slim
COPY --from=build /opt/lmsanitator /opt/lmsanitator
ENV PATH=/opt/lmsanitator/bin:$PATH PYTHONDONTWRITEBYTECODE=1
RUN useradd --create-home --uid 10001 scanner
USER scanner
WORKDIR /home/scanner
ENTRYPOINT ["lmsanitator"]
CMD ["--help"]
