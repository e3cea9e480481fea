"""What opening a stranger's files may cost, in one place; `docs/threat-model.md` lists each, and a test compares."""

MAX_ENTRIES = 10_000
"""Entries of a checkpoint's folder."""
MAX_SHARDS = 1024
"""Files the weights may be spread over."""
MAX_CONFIG_BYTES = 2**20
"""config.json and adapter_config.json."""
MAX_TEXT_BYTES = 64 * 2**20
"""Any other JSON, vocabulary or template file: the tokenizer.json of 250,000 tokens has 17 MiB."""
MAX_HEADER_BYTES = 32 * 2**20
"""The header of a safetensors file, and the pickle inside a torch archive: 100 bytes for each tensor are usual."""
MAX_TENSORS = 2**17
"""Tensors in all files together."""
MAX_DIMENSIONS = 8
"""Dimensions of one tensor."""
MAX_LISTED = 2**17
"""Layers, labels and blocks of a config, added up: config classes write out one entry for each."""
MAX_BUFFER_VALUES = 2**26
"""Values in the tables a model computes for itself, where the files do not hold half as many weights."""
MAX_NAMES = 1024
"""Modules that the config of an adapter lists."""
MAX_FRAME = 64
"""Tokens that a tokenizer makes of two characters."""
MAX_PATTERN = 4096
"""Characters of a regular expression in a tokenizer."""
MAX_REPEATS = 2
"""Unbounded repeats one after another in a regular expression: its cost grows with length ** (repeats + 1)."""
MAX_CHOICES = 256
"""Ways a regular expression can match besides its unbounded repeats, multiplied along one branch."""
MAX_STEPS = 64
"""Normalizers, pre-tokenizers and decoders of one tokenizer."""
MAX_WORD = 256
"""Letters of a word that a tokenizer looks up pieces for, at a cost that grows faster than their square."""
MAX_GROWTH = 64
"""How many times longer the normalizers of a tokenizer may make a text."""
