cwlVersion: v1.2
class: Workflow
label: SPD-like online filter
doc: >
  Time slices of a free-running detector are decoded, reconstructed and filtered one by one;
  the selected events of several slices are merged into one file.
$namespaces:
  spdf: https://spdf.readthedocs.io/ns#
requirements:
  ScatterFeatureRequirement: {}
hints:
  spdf:Template: {mask: "run-[0-9][0-9][0-9][0-9]", rank: 0}
inputs:
  slices:
    type: File[]
    doc: Raw slice files, one job each
  calibration:
    type: File
    doc: Table of per-layer offsets of time, phi and z
  min_pt:
    type: float
    default: 1.0
    doc: Least transverse momentum of both tracks of the pair, in GeV
  min_tracks:
    type: int
    default: 2
    doc: Least number of tracks of a selected event
steps:
  decode:
    run: decode.cwl
    scatter: raw
    in: {raw: slices, calibration: calibration}
    out: [hits]
    hints:
      spdf:Stage: {retry: 2}
  reconstruct:
    run: reconstruct.cwl
    scatter: hits
    in: {hits: decode/hits}
    out: [events]
    hints:
      spdf:Stage: {retry: 2}
  select:
    run: select.cwl
    scatter: events
    in: {events: reconstruct/events, min_pt: min_pt, min_tracks: min_tracks}
    out: [selected]
    hints:
      spdf:Stage: {retry: 2}
  merge:
    run: merge.cwl
    in:
      selected: {source: select/selected, pickValue: all_non_null}
    out: [merged]
    hints:
      spdf:Merge: {filesPerJob: 8}
outputs:
  tracks:
    type: File[]
    outputSource: reconstruct/events
    doc: All tracks and events, to evaluate the chain with
  selected:
    type: File[]
    outputSource: select/selected
    pickValue: all_non_null
  merged:
    type: File
    outputSource: merge/merged
