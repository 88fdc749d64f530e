FROM python:3.11-slim

RUN useradd --create-home t2aux
WORKDIR /opt/t2aux
COPY setup.cfg pyproject.toml constraints.txt README.md LICENSE ./
COPY t2aux t2aux
COPY export export
COPY gin gin
RUN pip install --no-cache-dir -c constraints.txt .

USER t2aux
WORKDIR /home/t2aux
ENTRYPOINT ["t2aux"]
