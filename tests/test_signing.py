"""Signatures: who signed, and that nothing changed since."""

import sys

import fake_format
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from checkpoints import files
from exporters import manifest, signatures
from exporters.errors import ArtifactError, MissingLibraryError, SigningError
from exporters.exporting import export
from exporters.signatures import TrustedIdentity, TrustedKey
from exporters.signing import sign
from exporters.verification import verify

CHECKPOINT = fake_format.checkpoint()


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """A function that makes a pair of keys and returns their files."""
    directory = tmp_path_factory.mktemp("keys")

    def make(name, password=None):
        key = ec.generate_private_key(ec.SECP256R1())
        encryption = (
            serialization.BestAvailableEncryption(password.encode())
            if password
            else serialization.NoEncryption()
        )
        private, public = directory / f"{name}.pem", directory / f"{name}.pub"
        pem = serialization.Encoding.PEM
        private.write_bytes(
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, encryption)
        )
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        public.write_bytes(key.public_key().public_bytes(pem, form))
        return private, public

    return make


@pytest.fixture
def made(tmp_path):
    """An exported artifact of each task."""
    return [item.path for item in exported(tmp_path).artifacts]


def exported(directory, **options):
    return export(
        CHECKPOINT,
        directory,
        formats=fake_format.TABLE.values(),
        options=fake_format.OPTIONS,
        images=fake_format.IMAGES,
        reference=fake_format.FakeReference(CHECKPOINT),
        **options,
    )


def signed(paths, key, **options):
    return sign(paths, key, formats=fake_format.TABLE, **options)


def verified(paths, trust):
    return verify(
        paths,
        CHECKPOINT,
        images=fake_format.IMAGES,
        signed_by=trust,
        formats=fake_format.TABLE,
        reference=fake_format.FakeReference(CHECKPOINT),
    )


def test_what_is_signed_is_verified(made, keys):
    private, public = keys("mine")
    signatures_made = signed(made[0].parent, private)
    assert set(signatures_made) == set(map(manifest.signature_of, made))
    done = verified(made, TrustedKey(public))
    assert done.passed and len(done.artifacts) == 2
    assert verified([manifest.signature_of(made[0])], TrustedKey(public)).passed


def test_the_library_itself_verifies_it(made, keys):
    from model_signing import verifying

    private, public = keys("mine")
    (signature,) = signed(made[0], private)
    config = verifying.Config().use_elliptic_key_verifier(public_key=public)
    config.verify(manifest.path_of(made[0]), signature)


def test_an_encrypted_key(made, keys):
    private, public = keys("secret", password="a password")
    with pytest.raises(SigningError, match=r"secret\.pem cannot be used as a key"):
        signed(made, private)
    signed(made, private, password="a password")
    assert verified(made, TrustedKey(public)).passed


def change_manifest(path):
    place = manifest.path_of(path)
    files.write_json(place, files.read_json(place) | {"stand_in": True})


def change_signature(path):
    place = manifest.signature_of(path)
    found = files.read_json(place)
    payload = found["dsseEnvelope"]["payload"]
    found["dsseEnvelope"]["payload"] = payload[:-8] + "AAAA" + payload[-4:]
    files.write_json(place, found)


def change_artifact(path):
    path.write_bytes(path.read_bytes() + b" ")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path: manifest.signature_of(path).unlink(), "not signed: there is no "),
        (lambda path: manifest.signature_of(path).write_text("?"), "does not hold"),
        (change_signature, "its signature does not hold"),
        (change_manifest, "the manifest is not the one that was signed"),
        (lambda path: manifest.card_of(path).write_text("?"), "card.md"),
        (change_artifact, "not as its manifest says"),
    ],
)
def test_what_was_changed_is_found(made, keys, change, reason):
    private, public = keys("mine")
    signed(made, private)
    change(made[0])
    done = verified(made, TrustedKey(public))
    changed, other = done.artifacts
    assert not changed.passed and other.passed
    told = changed.error or " ".join(changed.report.problems)
    assert reason in told


def test_somebody_elses_signature(made, keys):
    private, _ = keys("mine")
    _, other = keys("other")
    signed(made, private)
    (item, _) = verified(made, TrustedKey(other)).artifacts
    assert not item.passed
    assert "its signature does not hold: Key mismatch" in item.report.problems[0]


@pytest.mark.parametrize("content", [b"", b"no key", None])
def test_what_is_no_key(made, tmp_path, content):
    key = tmp_path / "key"
    if content is not None:
        key.write_bytes(content)
    expected = OSError if content is None else SigningError
    with pytest.raises(expected, match="key"):
        signed(made, key)
    with pytest.raises(expected, match="key"):
        verified(made, TrustedKey(key))
    assert not manifest.signature_of(made[0]).exists()


def test_nothing_is_signed_unless_all_is_as_it_was_made(made, keys):
    private, _ = keys("mine")
    change_artifact(made[1])
    with pytest.raises(ArtifactError, match=f"{made[1].name} is not as its manifest"):
        signed(made, private)
    manifest.path_of(made[1]).unlink()
    with pytest.raises(ArtifactError, match="which would be signed"):
        signed(made, private)
    assert not any(manifest.signature_of(path).exists() for path in made)


def test_a_signature_does_not_outlive_its_artifact(made, keys, tmp_path):
    signed(made, keys("mine")[0])
    exported(tmp_path, force=True)
    assert not any(manifest.signature_of(path).exists() for path in made)


def test_without_the_library(made, keys, monkeypatch):
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(MissingLibraryError, match=r"pip install 'irv2\[sign\]'"):
        signed(made, keys("mine")[0])


def test_sigstore_is_asked_for_an_identity(made, keys, monkeypatch):
    """As far as can be tested without an identity: who is asked, and for whom."""
    from model_signing import signing, verifying

    asked = []

    def signer(self):
        asked.append("who are you")
        return self.use_elliptic_key_signer(private_key=private)

    def verifier(self, **who):
        asked.append(who)
        return self.use_elliptic_key_verifier(public_key=public)

    private, public = keys("sigstore")
    monkeypatch.setattr(signing.Config, "use_sigstore_signer", signer)
    monkeypatch.setattr(verifying.Config, "use_sigstore_verifier", verifier)
    signed(made, None)
    trust = TrustedIdentity("me@example.org", "https://example.org")
    assert verified(made, trust).passed
    assert asked == [
        "who are you",
        {"identity": "me@example.org", "oidc_issuer": "https://example.org"},
    ]


def test_a_library_that_fails_in_its_own_way_is_quoted():
    with pytest.raises(SigningError, match="cannot sign: no route"):
        with signatures.reasons("cannot sign"):
            raise RuntimeError("no route\nto host")
