"""Read and write model files: fairseq checkpoints and safetensors."""
