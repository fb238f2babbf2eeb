#!/bin/sh
# `cwltool --pack` writes one self-contained document; one would guess that every CWL library reads
# it. Where a workflow and its tool import the same file of types, the first stands in the document
# and the other is left as `{"$import": "#types.yml/lib"}`, a name inside of that document.
# cwltool runs it. The typed parser of cwl-utils reads the whole graph, but of the process that is
# asked for by its name (`packed.json#tool.cwl`) it refuses all requirements. Who takes packed
# workflows from other people (`spdf template create packed.json`), one process after the other, has
# to resolve such names before.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check cwltool==3.3.20260925135507 cwl-utils==0.45

cat > types.yml <<'YAML'
- {name: lib, type: record, fields: {idx: int}}
YAML
cat > tool.cwl <<'YAML'
cwlVersion: v1.2
class: CommandLineTool
requirements: {SchemaDefRequirement: {types: [{$import: types.yml}]}}
baseCommand: echo
arguments: [$(inputs.lib.idx)]
inputs: {lib: "types.yml#lib"}
stdout: out.txt
outputs: {out: stdout}
YAML
cat > flow.cwl <<'YAML'
cwlVersion: v1.2
class: Workflow
requirements: {SchemaDefRequirement: {types: [{$import: types.yml}]}}
inputs: {lib: "types.yml#lib"}
outputs: {out: {type: File, outputSource: say/out}}
steps: {say: {run: tool.cwl, in: {lib: lib}, out: [out]}}
YAML
echo '{"lib": {"idx": 7}}' > job.json

venv/bin/cwltool --pack flow.cwl > packed.json 2> pack.log
venv/bin/pip list 2> /dev/null | grep -E '^(cwltool|cwl-utils|schema-salad) '
echo "--- what is left of the second import:"
grep -n '"$import": "#types.yml/lib"' packed.json
echo "--- cwltool runs the packed document:"
venv/bin/cwltool --quiet packed.json job.json > result.json 2> run.log || { cat run.log; exit 1; }
grep -q '"basename": "out.txt"' result.json
cat out.txt
echo "--- cwl-utils reads the tool as written, and not as packed:"
venv/bin/python - <<'PYTHON'
import sys
from pathlib import Path

from cwl_utils.parser import load_document_by_uri
from schema_salad.exceptions import ValidationException

load_document_by_uri(Path("tool.cwl").absolute().as_uri())
print("tool.cwl: read")
packed = Path("packed.json").absolute().as_uri()
load_document_by_uri(packed, load_all=True)
print("packed.json, all of it: read")
try:
    load_document_by_uri(packed + "#tool.cwl")
except ValidationException as fault:
    print("packed.json#tool.cwl:", " ".join(str(fault).split())[-120:])
else:
    sys.exit("packed.json#tool.cwl is read now: the behaviour has changed")
PYTHON
