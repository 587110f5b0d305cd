"""Settings of exchanges: `[exchanges.NAME]`, keys for endpoints that are not public."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, SecretStr

from clm_core.domain.secret_references import Referable, SecretReference

ExchangeSecret = Annotated[SecretStr, Referable()]


class ExchangeKeys(BaseModel):
    """API keys of an exchange, for bars and markets without public access; keys that may read are enough."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    api_key: ExchangeSecret
    """Key issued by the exchange."""
    secret: ExchangeSecret
    """Secret of the key, which signs the requests."""
    password: ExchangeSecret | None = None
    """Passphrase of the key, where the exchange asks for one, as OKX and KuCoin do."""

    def credentials(self) -> dict[str, str]:
        """Values by the names of ccxt.

        Raises:
            SecretUnavailable: the server of secrets does not give one.
        """
        named = {"apiKey": self.api_key, "secret": self.secret, "password": self.password}
        return {name: secret.get_secret_value() for name, secret in named.items() if secret is not None}

    def read_again(self) -> bool:
        """Read the keys in the server of secrets anew; False if no key can have changed."""
        secrets = (self.api_key, self.secret, self.password)
        references = [secret for secret in secrets if isinstance(secret, SecretReference)]
        # of every secret, not up to the first
        return bool([secret for secret in references if secret.read_again()])
