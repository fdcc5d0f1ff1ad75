"""A tokenizer folder with special tokens and a chat template, and the templates that the tests use."""

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

TEXT = (
    "system You are a helpful assistant. user What is the capital of France? assistant It is Paris, a city on the "
    "Seine. user And of Italy? assistant Rome. The answer is short; ask again if you wish. 0 1 2 3 4 5 6 7 8 9"
)
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + "
    "'\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MARKED = (
    "{%- for message in messages %}\n{{- '<|im_start|>' + message.role + '\n' }}\n"
    "{%- if message.role == 'assistant' %}\n{%- generation %}\n{{- message.content + '<|im_end|>' }}\n"
    "{%- endgeneration %}\n{%- else %}\n{{- message.content + '<|im_end|>' }}\n{%- endif %}\n{{- '\n' }}\n"
    "{%- endfor %}\n{%- if add_generation_prompt %}\n{{- '<|im_start|>assistant\n' }}\n{%- endif %}\n"
)
INST = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] | trim + ' ' + eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
# what is written of a turn depends on whether others follow it
LAST_ONLY = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}{% if loop.last and message['role'] == "
    "'assistant' %}{{ 'Final: ' }}{% endif %}{{ message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def write_chat_tokenizer(folder: Path, template: str | None = CHATML, vocab_size: int = 400) -> Path:
    """A byte-level BPE with ``<|endoftext|>`` (end of text), ``<|im_start|>``, ``<|im_end|>`` and a chat template."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT] * 4, trainer)
    tokenizer.add_special_tokens([AddedToken(mark, special=True) for mark in ("<|im_start|>", "<|im_end|>")])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1_000_000,
    }
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder
