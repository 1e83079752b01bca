"""What only a CPU needs: faster LoRA layers and GPTQ loops, vLLM's LoRA mended, the allocator's settings.

Optional: without this room everything works, more slowly. Nothing of it is imported or set where a GPU computes: who
wants it asks for the device first and imports it there, inside a function.
"""
