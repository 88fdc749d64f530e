"""TLS on both ports, and the client's side of it, with certificates that are made here."""

import datetime
import ipaddress
import os
import subprocess
import sys

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from t2aux.client import transport
from t2aux.client.client_tls import ClientTls
from t2aux.client.remote import RemoteClassifier
from t2aux.client.retries import Retries
from t2aux.errors import FileError, ServerError, SettingError
from t2aux.serving.models import ModelConfig
from t2aux.serving.ssl_config import read_ssl_config
from t2aux_ondevice import litert
from tests import small_exports
from tests.cli_helpers import assert_one_sentence, environment, fork_server
from tests.serving.conftest import running

NOW = datetime.datetime.now(datetime.timezone.utc)
DAY = datetime.timedelta(days=1)
SCHEMES = ("grpcs", "https")


class Authority:
    """Signs certificates, and writes them as PEM files."""

    def __init__(self, folder, name):
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.path = folder / f"{name}.pem"
        self.path.write_bytes(self._signed(self.name, self.key, [], NOW + DAY, ca=True))

    def make(self, name, host="127.0.0.1", until=NOW + DAY):
        """A certificate and its key: the two files."""
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            names = [x509.IPAddress(ipaddress.ip_address(host))]
        except ValueError:
            names = [x509.DNSName(host)]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate, private = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        certificate.write_bytes(self._signed(subject, key, names, until))
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        private.chmod(0o600)
        return certificate, private

    def _signed(self, subject, key, names, until, ca=False):
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - 10 * DAY)
            .not_valid_after(until)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"), "ours")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("stranger"), "another")


def config_text(certificate, key, **fields):
    """An SSLConfig in protobuf's text format."""
    texts = {"server_key": key, "server_cert": certificate, **fields}
    lines = []
    for name, value in texts.items():
        if isinstance(value, bool):
            lines.append(f"{name}: {str(value).lower()}")
        elif value is not None:
            lines.append(f"{name}: {value.read_text()!r}")
    return "\n".join(lines)


def ssl_config(folder, *arguments, **fields):
    path = folder / "ssl.config"
    path.write_text(config_text(*arguments, **fields))
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The base path of a model that loads at once."""
    path = tmp_path_factory.mktemp("quick")
    small_exports.write_quick(path / "1")
    return path


@pytest.fixture(scope="module")
def serving(base, tmp_path_factory):
    """Starts a server with TLS: its addresses by scheme."""

    def start(*arguments, **fields):
        path = ssl_config(tmp_path_factory.mktemp("config"), *arguments, **fields)
        tls = read_ssl_config(str(path))
        return running([ModelConfig("images", base)], tls=tls, poll_seconds=0.05)

    return start


def addresses(server):
    return {
        "grpcs": f"grpcs://127.0.0.1:{server.server.port}",
        "https": f"https://127.0.0.1:{server.server.rest_api_port}",
    }


def ask(address, *files):
    """A client's answer, with the files of `ClientTls`."""
    tls = ClientTls(*(f and str(f) for f in files)) if files else None
    way = transport.connect(address, tls)
    try:
        attempts = Retries(timeout=120, max_retries=0)
        described = litert.description(small_exports.IMAGES)
        remote = RemoteClassifier(way, "images", described=described, attempts=attempts)
        return remote.probabilities(np.full([16, 1], 0.5, np.float32))
    finally:
        way.close()


@pytest.fixture(scope="module")
def server(serving, authority):
    with serving(*authority.make("server")) as found:
        yield found


@pytest.fixture(scope="module")
def strict(serving, authority):
    """A server that wants to see certificates."""
    made = authority.make("strict")
    with serving(*made, custom_ca=authority.path, client_verify=True) as found:
        yield found


@pytest.mark.parametrize("scheme", SCHEMES)
def test_answers_come_through_tls(server, authority, scheme):
    assert ask(addresses(server)[scheme], authority.path).sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_who_is_not_known_is_refused(server, stranger, scheme):
    for files in ((stranger.path,), ()):
        with pytest.raises(ServerError, match="--ca_file"):
            ask(addresses(server)[scheme], *files)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"host": "example.org"}, "another host"),
        ({"host": "127.0.0.2"}, "another host"),
        ({"until": NOW - DAY}, "expired"),
    ],
)
def test_a_wrong_certificate_is_refused(serving, authority, options, part):
    with serving(*authority.make("wrong", **options)) as server:
        for address in addresses(server).values():
            with pytest.raises(ServerError, match=f"^{address} .*certificate .*{part}"):
                ask(address, authority.path)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_clients_show_certificates_where_they_must(strict, authority, stranger, scheme):
    address = addresses(strict)[scheme]
    good = authority.make("client")
    assert ask(address, authority.path, *good).sum() == pytest.approx(1, abs=1e-5)
    for files in ((), stranger.make("client")):
        with pytest.raises(ServerError) as caught:
            ask(address, authority.path, *files)
        assert "\n" not in str(caught.value)
    with pytest.raises(ServerError, match=r"--cert_file .*--key_file|not ready"):
        ask(address, authority.path)


def test_a_plain_client_at_a_tls_port_and_the_reverse(server, base, authority):
    for address in addresses(server).values():
        with pytest.raises(ServerError) as caught:
            ask(address.replace("s://", "://"))
        assert "\n" not in str(caught.value)
    with running([ModelConfig("images", base)], poll_seconds=0.05) as plain:
        for address in addresses(plain).values():
            with pytest.raises(ServerError, match=r" TLS; .*http://"):
                ask(address, authority.path)


def test_files_that_are_wrong_are_errors(authority, stranger, tmp_path):
    certificate, key = authority.make("mine")
    _, other = authority.make("other")
    (tmp_path / "no.pem").write_text("nothing")
    for files, kind, part in (
        ((tmp_path / "missing",), FileError, "/missing: "),
        ((tmp_path / "no.pem",), SettingError, r"/no\.pem .*PEM"),
        ((None, certificate, None), SettingError, "--cert_file .*--key_file"),
        ((None, certificate, other), SettingError, "belong together"),
        ((None, tmp_path / "no.pem", key), SettingError, "certificate .*private key .*PEM"),
        ((None, certificate, tmp_path / "missing"), FileError, "/missing: "),
    ):
        with pytest.raises(kind, match=part):
            transport.connect("https://localhost", ClientTls(*(f and str(f) for f in files)))
    with pytest.raises(SettingError, match=r"--ca_file.* https://localhost"):
        transport.connect("http://localhost", ClientTls(str(authority.path)))


def test_configurations_that_are_wrong_are_errors(authority, tmp_path):
    certificate, key = authority.make("mine")
    _, other = authority.make("other")
    for text, part in (
        (config_text(certificate, None), "server_key"),
        ('server_key: "server.key" server_cert: "server.crt"', "PEM"),
        (config_text(certificate, other), "belong together"),
        (config_text(certificate, key, client_verify=True), "custom_ca"),
        (config_text(certificate, key) + "\nsomething: 1", "SSLConfig .*protobuf"),
    ):
        path = tmp_path / "ssl.config"
        path.write_text(text)
        with pytest.raises(SettingError, match=part) as caught:
            read_ssl_config(str(path))
        # No part of the key is shown.
        assert key.read_text().splitlines()[1] not in str(caught.value)


def test_keys_that_others_can_read_are_errors(authority, tmp_path, caplog):
    made = authority.make("mine")
    path = ssl_config(tmp_path, *made)
    read_ssl_config(str(path))
    assert not caplog.records
    path.chmod(0o644)
    read_ssl_config(str(path))
    assert f"chmod 600 {path}\n" in caplog.text
    caplog.clear()
    made[1].chmod(0o604)
    transport.connect("https://localhost", ClientTls(None, *map(str, made))).close()
    assert f"chmod 600 {made[1]}\n" in caplog.text


def test_the_command_lines(base_paths, authority, stranger, tmp_path):
    path = ssl_config(tmp_path, *authority.make("server"))
    process = fork_server().start(
        tmp_path / "log",
        *("serve", "--port=0", "--rest_api_port=0"),
        *(f"--model_base_path={base_paths['images'][0]}", f"--ssl_config_file={path}"),
    )
    np.savez(tmp_path / "x.npz", inputs=np.zeros([1, 16, 1], np.float32))

    def client(url, ca):
        code = (
            "import sys; sys.modules['tensorflow'] = None\n"
            "sys.argv[:1] = ['t2aux', 'client']\n"
            "from t2aux.cli import main; main.main()"
        )
        arguments = ["--model=images", f"--server={url}", f"--ca_file={ca}", tmp_path / "x.npz"]
        return subprocess.run(
            [sys.executable, "-c", code, *map(os.fspath, arguments)],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=300,
        )

    try:
        process.wait_until(lambda: "/v1/models/" in process.stderr)
        assert "Serving images, version 1.\n" in process.stderr
        url = process.stderr.split("REST at ")[1].partition("/v1/models/")[0]
        assert url.startswith("https://")
        done = client(url, authority.path)
        assert (done.returncode, done.stderr) == (0, "")
        assert_one_sentence(client(url, stranger.path), "--ca_file")
    finally:
        process.kill()
