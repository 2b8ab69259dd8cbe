import json
from dataclasses import replace

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from oar_core.errors import ConfigError, PromptError, PromptLengthError, WeightsError
from oar_core.models.chat import CHAT, ChatConditioner, Conversation

CONVERSATION = Conversation(
    template="<|User|>: {prompt}\n\n<|Assistant|>:<begin_of_image>", start="<s>", pad="<pad>", begin="<begin_of_image>"
)
SPECIAL = ("<s>", "<pad>", "<begin_of_image>")


@pytest.fixture(scope="module")
def tokenizer():
    """Of bytes, as a language model has it: words begin with their space."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    texts = ["<|User|>: a red bird on snow\n\n<|Assistant|>:", "a bird, a bird"]
    trainer = trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    return tokenizer


@pytest.fixture(scope="module")
def conditioner(tokenizer):
    return ChatConditioner(tokenizer, CONVERSATION)


def test_a_prompt_stands_in_its_conversation(tokenizer, conditioner):
    ids = conditioner.encode("  a red bird ", max_length=100)
    start, pad, begin = (tokenizer.token_to_id(name) for name in SPECIAL)
    assert (ids[0], ids[-1]) == (start, begin)
    assert tokenizer.decode(ids[1:], skip_special_tokens=True) == "<|User|>: a red bird\n\n<|Assistant|>:"
    assert conditioner.unconditional_ids == (start, pad, begin)
    assert conditioner.num_special_tokens == len(conditioner.encode_captions(["x"], max_length=100)[0]) - 1


def test_it_is_what_transformers_makes_of_the_same_text(tokenizer, conditioner):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", pad_token="<pad>")
    for prompt in ("a red bird", "Ein Vogel, 鳥 \u200b on snow!"):
        text = f"<s><|User|>: {prompt}\n\n<|Assistant|>:<begin_of_image>"
        assert conditioner.encode(prompt, max_length=200) == tuple(theirs(text, add_special_tokens=False)["input_ids"])


def test_prompts_that_are_empty_too_long_or_hold_special_tokens_are_refused(conditioner):
    with pytest.raises(PromptError, match="the prompt is empty"):
        conditioner.encode(" \n", max_length=100)
    exact = len(conditioner.encode("a red bird", max_length=100))
    assert len(conditioner.encode("a red bird", max_length=exact)) == exact
    with pytest.raises(PromptLengthError, match=r"has \d+ tokens"):
        conditioner.encode("a red bird", max_length=exact - 1)
    with pytest.raises(PromptError, match="<begin_of_image> in it"):
        conditioner.encode("a bird<begin_of_image>", max_length=100)


def test_captions_of_training_are_cut_and_keep_their_last_token(conditioner):
    whole, cut = (conditioner.encode_captions(["a red bird on snow"], max_length=most)[0] for most in (100, 12))
    assert cut == (*whole[:11], whole[-1])
    assert conditioner.encode_captions([""], max_length=100) == [conditioner.unconditional_ids]


def test_it_is_read_back_as_it_was_saved(conditioner, tmp_path):
    conditioner.save(tmp_path)
    again = ChatConditioner.load(tmp_path)
    prompt = "a bird, 鳥"
    assert again.encode(prompt, max_length=100) == conditioner.encode(prompt, max_length=100)
    assert again.to_json() == conditioner.to_json()


def test_what_cannot_be_read_is_said_in_a_sentence(conditioner, tokenizer, tmp_path):
    with pytest.raises(WeightsError, match="is missing"):
        ChatConditioner.load(tmp_path)
    conditioner.save(tmp_path)
    stored = json.loads((tmp_path / CHAT).read_text())
    for broken in ("[]", "{", json.dumps({**stored, "tokenizer": {}}), json.dumps({"template": "x"})):
        (tmp_path / CHAT).write_text(broken)
        with pytest.raises(WeightsError, match="holds no conversation"):
            ChatConditioner.load(tmp_path)
    with pytest.raises(ConfigError, match="no token '<nothing>'"):
        ChatConditioner(tokenizer, replace(CONVERSATION, pad="<nothing>"))
    for template in ("{prompt}", "{prompt}{prompt}<begin_of_image>", "<begin_of_image>"):
        with pytest.raises(ConfigError, match="a template names"):
            replace(CONVERSATION, template=template)
