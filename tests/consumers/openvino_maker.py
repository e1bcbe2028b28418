"""Saves what OpenVINO reads of another tool's file, in OpenVINO's own form.

Arguments: the file; the directory to write to.
"""

import sys

import openvino


def main(source, directory):
    model = openvino.convert_model(source)
    openvino.save_model(model, f"{directory}/it.xml", compress_to_fp16=False)
    openvino.save_model(model, f"{directory}/half.xml", compress_to_fp16=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
