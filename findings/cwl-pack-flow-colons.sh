#!/bin/sh
# A prefixed name such as `edam:format_1930` is a plain scalar of YAML 1.2 in flow mappings, too: the
# colon is followed by no space. cwltool and the parser of cwl-utils read `{format: edam:format_1930}`
# and run it; one would guess that `cwl-pack` of the same cwl-utils does. It does where ruamel.yaml
# stands alone; where ruamel.yaml.clib is installed, too, which is meant to make it faster, it reads
# by libyaml and calls the same file malformed. So a workflow packs on one machine and not on the
# other. Who is told to pack a template before sending it (`cwl-pack chain.cwl`) writes such names in
# quotes, or in block mappings.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check cwltool==3.3.20260925135507 cwl-utils==0.45 ruamel.yaml==0.19.1

cat > tool.cwl <<'YAML'
cwlVersion: v1.2
class: CommandLineTool
$namespaces: {edam: "http://edamontology.org/"}
baseCommand: cat
inputs: {reads: {type: File, format: edam:format_1930, inputBinding: {}}}
stdout: out.txt
outputs: {out: stdout}
YAML
sed 's/edam:format_1930/"edam:format_1930"/' tool.cwl > quoted.cwl

venv/bin/pip list 2> /dev/null | grep -E '^(cwltool|cwl-utils|ruamel.yaml) '
echo "--- cwltool:"
venv/bin/cwltool --validate tool.cwl 2>&1 | tail -1
echo "--- the parser of cwl-utils:"
venv/bin/python -c '
from pathlib import Path
from cwl_utils.parser import load_document_by_uri
print(load_document_by_uri(Path("tool.cwl").absolute().as_uri()).inputs[0].format)'
echo "--- cwl-pack, with quotes:"
venv/bin/cwl-pack quoted.cwl 2> quoted.log | grep '"format"'
echo "--- cwl-pack, without:"
venv/bin/cwl-pack tool.cwl 2> plain.log | grep '"format"'
echo "--- cwl-pack, without, beside ruamel.yaml.clib:"
venv/bin/pip install -q --disable-pip-version-check ruamel.yaml.clib==0.2.15
if venv/bin/cwl-pack tool.cwl > packed.json 2> plain.log; then
    echo "it is read now: the behaviour has changed"
    exit 1
fi
grep -E 'Malformed|unexpected' plain.log
