"""What reads files from outside, given whatever libFuzzer thinks of.

    make fuzz
    make fuzz SECONDS=600 FUZZ="onnx record"

Each target takes bytes and may raise the errors that `irv2` shows in a line; everything
else is a finding. Corpora grow in build/fuzz/, from seeds that are generated.
"""
