"""Language models behind a server that speaks the OpenAI protocol: vLLM, llama.cpp, Ollama, transformers serve."""
