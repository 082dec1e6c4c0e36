"""s3cmd (PyPI): put, get, sync, cp, mv, tags, lifecycle, CORS, info, del."""

from __future__ import annotations

import pytest

from tests.s3.clients.tools import environment, make_files, program, read_files, run
from tests.s3.expect import keys_of

MIB = 1 << 20
RULES = (
    "<LifecycleConfiguration><Rule><ID>r</ID><Filter><Prefix>x/</Prefix></Filter><Status>Enabled</Status>"
    "<Expiration><Days>1</Days></Expiration></Rule></LifecycleConfiguration>"
)


@pytest.fixture
def s3cmd(server, home):
    config = home / "s3cfg"
    lines = {
        "access_key": server.access_key,
        "secret_key": server.secret_key,
        "host_base": server.host,
        "host_bucket": server.host,
        "use_https": str(server.tls),
        "ca_certs_file": str(server.certificate.cert) if server.certificate else "",
    }
    config.write_text("[default]\n" + "".join(f"{name} = {value}\n" for name, value in lines.items()))
    command = [program("s3cmd", how="pip install s3cmd"), "-c", str(config), "--no-progress"]
    variables = environment(server, home)
    return lambda *arguments: run([*command, *arguments], variables)


def test_s3cmd_round_trips(s3cmd, s3, bucket, source, target, rng):
    contents = make_files(source, rng, sizes={"a/b": 1000, "large": 6 * MIB}, names=["with space", "ünï"])
    s3cmd("sync", "--multipart-chunk-size-mb=5", f"{source}/", f"s3://{bucket}/dir/")
    assert keys_of(s3, bucket) == sorted((f"dir/{name}" for name in contents), key=str.encode)
    s3cmd("sync", f"s3://{bucket}/dir/", f"{target}/")
    assert read_files(target) == contents
    s3cmd("cp", f"s3://{bucket}/dir/a/b", f"s3://{bucket}/copy")
    s3cmd("mv", f"s3://{bucket}/copy", f"s3://{bucket}/moved")
    assert "File size: 1000" in s3cmd("info", f"s3://{bucket}/moved")
    s3cmd("del", "--recursive", "--force", f"s3://{bucket}")
    assert keys_of(s3, bucket) == []


def test_s3cmd_configures(s3cmd, s3, bucket, source):
    (source / "rules").write_text(RULES)
    s3cmd("setlifecycle", str(source / "rules"), f"s3://{bucket}")
    assert "<ID>r</ID>" in s3cmd("getlifecycle", f"s3://{bucket}")
    s3.put_object(Bucket=bucket, Key="k")
    s3cmd("settagging", f"s3://{bucket}/k", "a=b&c=d")
    assert s3cmd("gettagging", f"s3://{bucket}/k").split()[-4:] == ["a:", "b", "c:", "d"]
    s3cmd("setversioning", f"s3://{bucket}", "enable")
    said = s3cmd("info", f"s3://{bucket}")
    assert "'x/'" in said
