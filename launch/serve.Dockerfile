# Serves an exported model, on a CPU unless EXTRA has more, for example EXTRA=serve,cuda12. Build and run:
#   docker build -f launch/serve.Dockerfile -t clustering-serve .
#   docker run --rm --read-only -p 8000:8000 -v "$PWD/model:/model:ro" clustering-serve [--max_rows=64 ...]
FROM python:3.12-slim
ARG EXTRA=serve
WORKDIR /clustering_jax
COPY pyproject.toml setup.py constraints.txt README.md LICENSE ./
COPY clustering_jax clustering_jax
COPY configs configs
RUN pip install --no-cache-dir -c constraints.txt ".[$EXTRA]"
# A number, so that Kubernetes' runAsNonRoot can check it.
USER 10001:10001
WORKDIR /
EXPOSE 8000
# The server compiles the model before it answers.
HEALTHCHECK --interval=30s --timeout=5s --start-period=180s --retries=3 \
  CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["python", "-m", "clustering_jax.serve", "/model", "--host=0.0.0.0", "--port=8000"]
