"""Bearer tokens and certificate identities."""

import hashlib
import hmac
import logging
import os
from pathlib import Path

import pytest
from chassis import errors
from chassis.auth import Authenticator, TokenFile, certificate_names, parse_tokens
from chassis.identity import Identity
from chassis.settings import AuthSettings
from pydantic import SecretStr

SHA = hashlib.sha256(b"by-digest").hexdigest()
MAC = hmac.digest(b"key", b"by-mac", "sha256").hex()


def tokens(text: str, key: str | None = None) -> Authenticator:
    return Authenticator(AuthSettings(tokens=SecretStr(text), hmac_key=SecretStr(key) if key else None))


@pytest.mark.parametrize(
    ("token", "name"), [("plain", "a"), ("by-digest", "b"), ("by-mac", "c"), ("with:colon", "d")]
)
def test_tokens_are_known_in_each_form(token: str, name: str) -> None:
    authenticator = tokens(f"a:plain,b:sha256:{SHA},c:hmac-sha256:{MAC},d:with:colon", "key")
    assert authenticator.authenticate(f"Bearer {token}") == Identity(name, "token")


@pytest.mark.parametrize(
    ("authorization", "reason"),
    [
        (None, "CREDENTIALS_MISSING"),
        ("Bearer wrong", "CREDENTIALS_INVALID"),
        ("Bearer ", "CREDENTIALS_MALFORMED"),
        ("Basic plain", "CREDENTIALS_MALFORMED"),
        (f"Bearer {SHA}", "CREDENTIALS_INVALID"),
    ],
)
def test_what_is_not_a_known_token_is_refused_without_saying_it_back(
    authorization: str | None, reason: str
) -> None:
    with pytest.raises(errors.Unauthenticated) as caught:
        tokens(f"a:plain,b:sha256:{SHA}").authenticate(authorization)
    assert caught.value.reason == reason
    assert SHA not in str(caught.value)
    assert "wrong" not in str(caught.value)


def test_without_configuration_everybody_is_nobody() -> None:
    authenticator = Authenticator(AuthSettings())
    assert not authenticator.enabled
    assert authenticator.authenticate(None) is None


def test_a_client_certificate_is_an_identity() -> None:
    authenticator = Authenticator(AuthSettings(), mutual_tls=True)
    assert authenticator.enabled
    assert authenticator.authenticate(None, ("gateway", "gateway.local")) == Identity("gateway", "mtls")
    with pytest.raises(errors.Unauthenticated):
        authenticator.authenticate(None)


def test_a_wrong_token_is_refused_even_with_a_certificate() -> None:
    authenticator = Authenticator(AuthSettings(tokens=SecretStr("a:plain")), mutual_tls=True)
    with pytest.raises(errors.Unauthenticated):
        authenticator.authenticate("Bearer wrong", ("gateway",))


def test_a_service_s_own_verifier_is_asked_too() -> None:
    class Keys:
        def verify(self, token: str) -> Identity | None:
            return Identity("key-1", "key", {"project": "p"}) if token == "pk" else None

    authenticator = tokens("a:plain")
    authenticator.add_verifier(Keys())
    identity = authenticator.authenticate("Bearer pk")
    assert identity is not None
    assert identity.attributes == {"project": "p"}


@pytest.mark.parametrize(
    "line", ["s3cr3t", ":s3cr3t", "s3cr3t:", "me:sha256:s3cr3t", "me:sha256:abcd"], ids=str
)
def test_a_broken_line_is_named_by_its_number_only(line: str) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        parse_tokens(["# tokens", "", "ok:fine", line], "tokens.txt")
    assert str(caught.value).startswith("tokens.txt, line 4: ")
    assert "s3cr3t" not in str(caught.value)


def test_hmac_digests_need_the_key() -> None:
    with pytest.raises(errors.InvalidArgument, match="hmac_key"):
        tokens(f"c:hmac-sha256:{MAC}")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_changed_file_is_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock, path = Clock(), tmp_path / "tokens"
    path.write_text("a:first\n")
    file = TokenFile(path, None, monotonic=clock)
    assert file.verify("first") == Identity("a", "token")
    path.write_text("a:second-token\n")
    assert file.verify("second-token") is None, "looked at too often"
    clock.now += 1.0
    assert file.verify("second-token") == Identity("a", "token")
    assert file.verify("first") is None

    path.write_text("broken line\n")
    clock.now += 1.0
    with caplog.at_level(logging.ERROR):
        assert file.verify("second-token") == Identity("a", "token"), (
            "a broken file must not lock everybody out"
        )
    assert "broken line" not in caplog.text
    os.remove(path)
    clock.now += 1.0
    assert file.verify("second-token") == Identity("a", "token")


def test_a_file_that_is_missing_at_the_start_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidArgument, match="none"):
        Authenticator(AuthSettings(tokens_file=tmp_path / "none"))


def test_certificate_names_begin_with_the_common_name() -> None:
    context = {
        "x509_common_name": [b"gateway"],
        "x509_subject_alternative_name": [b"gateway.local", b"10.0.0.1"],
    }
    assert certificate_names(context) == ("gateway", "gateway.local", "10.0.0.1")
    assert certificate_names({}) == ()
