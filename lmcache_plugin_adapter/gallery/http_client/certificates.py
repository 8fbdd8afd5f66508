# SPDX-License-Identifier: Apache-2.0
"""The TLS side of a client: which certificates it trusts, and which one it presents."""

from __future__ import annotations

import ssl


class CertificateError(OSError):
    """A file of certificates cannot be used.

    Args:
        key: The setting that names the file.
        path: The file.
        error: Why.
    """

    def __init__(self, key: str, path: str | None, error: OSError) -> None:
        super().__init__(f"cannot use {key} {path!r}: {error}")
        self.what = f"cannot use {key} {path!r}"
        self.error = error


def trusts_nobody() -> ssl.SSLContext:
    """Return a context for plain connections: it loads no certificates, and accepts none."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def client_context(
    *, ca_file: str | None, cert_file: str | None, key_file: str | None, verify: bool
) -> ssl.SSLContext:
    """Return the context of a client; read all files again.

    Args:
        ca_file: Certificates that may sign the server's; None: those of the system.
        cert_file: The client's own certificate.
        key_file: Its key; None: ``cert_file`` holds it.
        verify: Whether to check the server's certificate.

    Raises:
        CertificateError: A file cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise CertificateError("ca_file", ca_file, error) from None
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if cert_file is not None:
        try:
            # Without a password callback, OpenSSL would prompt on a terminal that is not there.
            context.load_cert_chain(cert_file, key_file, lambda: b"")
        except OSError as error:
            raise CertificateError("cert_file", cert_file, error) from None
    return context
