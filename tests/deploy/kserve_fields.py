"""Run by KServe's own Python: which fields of the resource on standard input do its models not know?"""

import json
import re
import sys
from typing import Any

import kserve.models
import kubernetes.client

known, unknown = 0, []


def look(value: Any, type_: str, at: str) -> None:
    """`type_` as the models name it: V1beta1TransformerSpec, list[V1Container], dict(str, str), str."""
    global known
    if found := re.fullmatch(r"list\[(.*)\]", type_):
        for number, each in enumerate(value):
            look(each, found[1], f"{at}[{number}]")
        return
    model = getattr(kserve.models, type_, None) or getattr(kubernetes.client, type_, None)
    if model is None or not isinstance(value, dict):
        return
    names = {key: name for name, key in model.attribute_map.items()}
    for key, each in value.items():
        if key in names:
            known += 1
            look(each, model.openapi_types[names[key]], f"{at}.{key}")
        else:
            unknown.append(f"{at}.{key}")


look(json.load(sys.stdin), "V1beta1InferenceService", "")
print(json.dumps({"known": known, "unknown": unknown}))
