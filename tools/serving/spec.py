"""How a model is served: one frozen description from which the program's arguments and environment follow.

The same description gives the same engine, so it is also what answers are comparable by. Nothing secret is in it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tunesmith.tools.core.stage import Frozen
from tunesmith.tools.machine.torch_env import OFFLINE
from tunesmith.tools.models.chat_template import SWITCH
from tunesmith.tools.models.memory_math import CONTEXT_TOKENS, SERVED_SEQUENCES

LOOPBACK = "127.0.0.1"
MAX_ANSWER_TOKENS = CONTEXT_TOKENS - 256
"""Of these, what an answer may be given: some must be left for the question."""
GUARD = Path(__file__).parent / "vllm_guard"
"""Put on the path of every vLLM: its module says what it guards."""


class ServerSpec(Frozen):
    """A vLLM server, but for its port and key."""

    model_dir: str
    served_name: str
    """What requests put into `model`."""
    weights_sha256: str = ""
    """Digest of the model folder, so that another model under the same path is another server."""
    max_lora_rank: int = 0
    """Adapters up to this rank may be loaded while it runs; 0: none."""
    lora_modules: tuple[str, ...] = ()
    """Modules that these may have; empty: all that vLLM knows."""
    max_model_len_tokens: int = CONTEXT_TOKENS
    max_num_seqs: int = SERVED_SEQUENCES
    """Sequences that the engine works on at once."""
    kv_cache_gib: int = 1
    cache_block_tokens: int = 0
    """Tokens of a block of the key-value cache; whole ones alone are shared. 0: as vLLM has it, 128 on a CPU."""
    tool_parser: str = "hermes"
    device: Literal["cpu", "cuda"] = "cpu"
    cards: int = 1
    """GPUs that the model is split over."""
    gpu_bytes: int = 0
    """Of each GPU's memory, what it needs; 0: not known, and vLLM takes what it takes by itself, nearly all of it."""
    gpu_cache_bytes: int = 0
    """Of these, the key-value cache."""
    gpu_full_cache_bytes: int = 0
    """What of it could be of use, where nobody else is on the GPU."""
    without_thoughts: bool = False
    """Whether its chat template is told to have the model answer at once, whatever a request leaves open."""

    @property
    def hash(self) -> str:
        """Digest of the whole description."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()

    def answers_as(self, other: ServerSpec) -> bool:
        """Whether it is the same engine with the same known weights, whatever they are called and wherever they lie."""
        names = {"model_dir": "", "served_name": ""}
        return bool(self.weights_sha256) and self.model_copy(update=names) == other.model_copy(update=names)


def arguments(spec: ServerSpec, port: int, memory: Sequence[str] = ()) -> list[str]:
    """Arguments of the vllm program, those that say what it may take of a GPU among them.

    The key is never among them: every user of the machine could read it there.
    """
    argv = ["serve", spec.model_dir, "--host", LOOPBACK, "--port", str(port), "--served-model-name", spec.served_name]
    return [*argv, "--middleware=tunesmith_guard.Guard", *memory, *engine_arguments(spec)]


def engine_arguments(spec: ServerSpec) -> list[str]:
    """The part of the arguments that may change an answer."""
    argv = [
        f"--max-model-len={spec.max_model_len_tokens}",
        f"--max-num-seqs={spec.max_num_seqs}",
        # 2048, vLLM's own, or a whole conversation: a prompt that is read in pieces is rounded otherwise.
        f"--max-num-batched-tokens={max(2048, spec.max_model_len_tokens)}",
        "--disable-uvicorn-access-log",
    ]
    if spec.cards > 1:
        argv.append(f"--tensor-parallel-size={spec.cards}")
    if spec.tool_parser:
        argv += ["--enable-auto-tool-choice", f"--tool-call-parser={spec.tool_parser}"]
    if spec.without_thoughts:
        argv.append(f"--default-chat-template-kwargs={json.dumps({SWITCH: False})}")
    if spec.device == "cpu":
        # Compiling costs about 50 s a start on two cores, more than it wins back over a suite.
        argv += ["--enforce-eager", "--dtype=bfloat16"]
        # vLLM 0.32 rewinds the random numbers of a seeded request whose prompt was cut in two, which its CPU engine
        # cannot: it ends. So no prompt is cut; one that does not fit into a step waits for the next.
        argv.append("--no-enable-chunked-prefill")
        argv += [f"--block-size={spec.cache_block_tokens}"] if spec.cache_block_tokens else []
    if spec.max_lora_rank:
        argv += ["--enable-lora", f"--max-lora-rank={spec.max_lora_rank}", "--max-loras=1"]
        argv += ["--lora-target-modules", *spec.lora_modules] if spec.lora_modules else []
    return argv


def environment(spec: ServerSpec, vllm: str) -> dict[str, str]:
    """What is added to the environment of the program `vllm`, beside its key."""
    env = {**OFFLINE, "VLLM_LOGGING_LEVEL": "INFO", "PYTHONPATH": str(GUARD)}
    if spec.max_lora_rank:
        env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "True"
    if spec.device == "cpu":
        from tunesmith.tools.cpu import settings

        env |= {**settings.VLLM, **settings.preloaded(vllm), "VLLM_CPU_KVCACHE_SPACE": str(spec.kv_cache_gib)}
        env["PYTHONPATH"] = f"{GUARD}{os.pathsep}{settings.VLLM_PLUGIN}"
    return env


def lora_of(spec: ServerSpec) -> str:
    """Which adapters a server takes."""
    modules = f", of {', '.join(spec.lora_modules)} alone" if spec.lora_modules else ""
    return f"allowed up to rank {spec.max_lora_rank}{modules}" if spec.max_lora_rank else "not allowed"


def plugins_of(spec: ServerSpec) -> list[str]:
    """Our own parts of a server's engine, with their versions: kernels that change how it computes."""
    if spec.device != "cpu":
        return []
    from tunesmith.tools.cpu.settings import vllm_plugins

    return vllm_plugins()


def precision_of(model_dir: Path) -> str:
    """How a model folder stores its weights: a dtype such as bfloat16, or the quantization, its bits and their type."""
    config = json.loads((model_dir / "config.json").read_text())
    if quantization := config.get("quantization_config"):
        groups = list(quantization.get("config_groups", {}).values())
        weights = (groups[0].get("weights") or {}) if groups else {}
        bits = f" {weights['num_bits']} bits" if "num_bits" in weights else ""
        bits += " float" if weights.get("type") == "float" else ""
        return f"{quantization.get('quant_method', 'quantized')}{bits}"
    return str(config.get("dtype") or config.get("torch_dtype") or "unknown")
