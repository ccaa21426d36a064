"""Times the CEM of stable-worldmodel on its own LeWM class. Run by `foresight bench planner --peer-python PATH`, in the
environment of that package (PATH is its python), so it imports nothing of Foresight. Arguments: threads, and cpu or cuda.

Reads one JSON object a line from standard input: {"samples", "iterations", "horizon"}; answers each with one line that begins
with MARK: {"s": seconds of one plan, both images encoded, "cpu_s": of all threads}. The first answer, unasked, says what was
loaded. Weights are random.
"""

import json
import sys
import time
import types

MARK = "PEER "
ELITES, BLOCK, SIZE = 30, 5, 224  # as published; 2 numbers in an action


def main(threads: int, device: str) -> None:
    import torch

    torch.set_num_threads(threads)
    model, solver_class, version = load(torch)
    model.to(device)
    parameters = sum(p.numel() for p in model.parameters())
    say({"package": "stable-worldmodel", "version": version, "torch": torch.__version__, "parameters": parameters})
    for line in sys.stdin:
        wanted = json.loads(line)
        say(plan(torch, model, solver_class, device, **wanted))


def allow_torchvision(torch) -> None:
    """Beside a CPU torch, torchvision's CUDA build has no C extension, and imports only where its operators are known."""
    if torch.version.cuda is not None:
        return
    library = allow_torchvision.library = torch.library.Library("torchvision", "DEF")  # definitions live as long as it does
    for name in ("nms", "qnms"):
        try:
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        except RuntimeError:
            pass  # the extension did load


def load(torch):
    """The model at its published sizes, the solver's class, and the package's version."""
    from importlib.metadata import version

    allow_torchvision(torch)
    from stable_worldmodel.solver.cem import CEMSolver
    from stable_worldmodel.wm.lewm.lewm import LeWM
    from stable_worldmodel.wm.lewm.module import MLP, Embedder, Predictor
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 192, "num_hidden_layers": 12, "num_attention_heads": 3, "intermediate_size": 768}
    encoder = ViTModel(ViTConfig(image_size=SIZE, patch_size=14, **sizes), add_pooling_layer=False)
    width = {"input_dim": 192, "hidden_dim": 192, "output_dim": 192}
    predictor = Predictor(num_frames=3, depth=6, heads=16, dim_head=64, mlp_dim=2048, dropout=0.1, **width)
    projectors = [MLP(192, 2048, 192, norm_fn=torch.nn.BatchNorm1d) for _ in range(2)]
    model = LeWM(encoder, predictor, Embedder(input_dim=2 * BLOCK, emb_dim=192), *projectors).eval()
    return model, CEMSolver, version("stable-worldmodel")


def plan(torch, model, solver_class, device: str, samples: int, iterations: int, horizon: int) -> dict:
    """Wall and processor time of one plan [s]."""
    from gymnasium.spaces import Box

    solver = solver_class(model, num_samples=samples, n_steps=iterations, topk=min(ELITES, samples), device=device)
    settings = types.SimpleNamespace(horizon=horizon, action_block=BLOCK)
    solver.configure(action_space=Box(-1.0, 1.0, (1, 2)), n_envs=1, config=settings)
    image = torch.randn(1, 1, 3, SIZE, SIZE, device=device)
    seen = {"pixels": image, "goal": image.flip(-1), "action": torch.zeros(1, 1, 2 * BLOCK, device=device)}
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    solver.solve(seen)  # its result is on the CPU: the GPU has finished
    return {"s": time.perf_counter() - began_s, "cpu_s": time.process_time() - began_cpu_s}


def say(answer: dict) -> None:
    print(MARK + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
