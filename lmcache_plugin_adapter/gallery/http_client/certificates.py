# SPDX-License-Identifier: Apache-2.0
"""The TLS side of a client: which certificates it trusts, and which one it presents."""

from __future__ import annotations

import contextlib
import os
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


def client_context(
    *,
    ca_file: str | None = None,
    cert_file: str | None = None,
    key_file: str | None = None,
    verify: bool = True,
) -> ssl.SSLContext:
    """Return the context of a client; read all files again.

    Args:
        ca_file: Certificates that may sign the server's; None: those of the system (or of
            ``SSL_CERT_FILE``), and those of the package certifi if it is installed.
        cert_file: The client's own certificate.
        key_file: Its key; None: ``cert_file`` holds it.
        verify: Whether to check the server's certificate.

    Raises:
        CertificateError: A file cannot be used.
    """
    try:
        context = (
            ssl.create_default_context(cafile=ca_file)
            if verify or ca_file is not None
            else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        )
    except OSError as error:
        raise CertificateError("ca_file", ca_file, error) from None
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif ca_file is None:
        _add_bundle(context)
    if cert_file is not None:
        try:
            # Without a password callback, OpenSSL would prompt on a terminal.
            context.load_cert_chain(cert_file, key_file, lambda: b"")
        except OSError as error:
            raise CertificateError("cert_file", cert_file, error) from None
    return context


def _add_bundle(context: ssl.SSLContext) -> None:
    """Trust certifi's certificates, too: slim containers have none of their own."""
    if "SSL_CERT_FILE" in os.environ or "SSL_CERT_DIR" in os.environ:
        return
    with contextlib.suppress(ImportError, OSError):
        import certifi

        context.load_verify_locations(certifi.where())
