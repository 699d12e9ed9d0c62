"""How towers run: exported once and run by ONNX Runtime on the CPU, torch on GPUs."""
