"""What the environment says about the way to registries: certificates and proxies."""

from collections.abc import Mapping

from requests.utils import should_bypass_proxies

_PROXIES = {
    "https": ("https_proxy", "HTTPS_PROXY"),
    "http": ("http_proxy",),
    "all": ("all_proxy", "ALL_PROXY"),
}


def certificates(variables: Mapping[str, str]) -> str | None:
    """Give the file or folder of certificates that counts in place of the system's."""
    return variables.get("SSL_CERT_FILE") or variables.get("SSL_CERT_DIR")


def proxies_for(host: str, variables: Mapping[str, str]) -> dict[str, str]:
    """Give the proxies on the way to a registry, by scheme, as requests has them; those exempt from them have none.

    Hosts that a registry sends us on to are exempt where ``no_proxy`` has their
    whole name; the registry itself also by a domain or a range of addresses.
    """
    found = {
        scheme: variables[names[0]] if names[0] in variables else variables[names[-1]]
        for scheme, names in _PROXIES.items()
        if any(name in variables for name in names)
    }
    exempt = variables.get("no_proxy") or variables.get("NO_PROXY") or ""
    if not found or not exempt:
        return found
    hosts = [name.strip() for name in exempt.split(",")]
    if should_bypass_proxies(f"https://{host}/", exempt):
        hosts.append(host.partition(":")[0])
    for name in hosts:
        if name:
            found |= {f"https://{name}": "", f"http://{name}": ""}
    return found
