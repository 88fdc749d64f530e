FROM python:3.11-slim

# The compiler builds the LSTM kernel at its first use, for the machine that it runs on.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 1000 t2aux

WORKDIR /opt/t2aux
COPY constraints.txt setup.cfg pyproject.toml README.md LICENSE ./
COPY t2aux/ t2aux/
COPY export/ export/
COPY gin/ gin/
RUN pip install --no-cache-dir --constraint constraints.txt ./export/ondevice/python .

# Mount a folder here to keep the output: docker run -v "$PWD/runs:/data" ...
WORKDIR /data
RUN chown t2aux:t2aux /data
USER t2aux
ENTRYPOINT ["t2aux"]
CMD ["--help"]
