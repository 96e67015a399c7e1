import torch

# One thread, as in a worker: processes side by side would wait for each other's cores.
torch.set_num_threads(1)
