"""Variables of MLflow for the webhooks of an installation: the key of the stored secrets, admitted addresses.

MLflow encrypts the secret of a webhook with a key from the environment. Without a key every process makes
another, and no process started later can read the secret.
"""

import os
import secrets
from base64 import urlsafe_b64encode
from pathlib import Path

from clm_core.platform.private_files import secure_home, stored_secret

KEY = "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"


def webhook_variables(home: Path) -> dict[str, str]:
    """Variables for every process that creates or sends webhooks; variables of the user win.

    Plain HTTP and private addresses are admitted, since the API of an installation has such an address. Only
    the owner of the home can create webhooks: the guard of MLflow's server refuses such requests.

    Raises:
        SecretExposed: another user could have read or written the key.
    """
    return {
        KEY: os.environ.get(KEY) or _stored_key(home),
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": os.environ.get("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "https,http"),
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": os.environ.get("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true"),
    }


def _stored_key(home: Path) -> str:
    """Key of the home, in a file that a backup holds, as it holds MLflow's database."""
    secure_home(home)
    file = home / "mlflow" / "webhooks.key"
    file.parent.mkdir(parents=True, exist_ok=True)
    remedy = f"Remove the file and create MLflow's webhooks anew, or, if nobody read it: chmod 600 {file}"
    return stored_secret(file, _new_key, remedy)


def _new_key() -> str:
    """Key for Fernet: 32 random bytes in base64."""
    return urlsafe_b64encode(secrets.token_bytes(32)).decode()
