"""Trains on small graphs; a sample has its tensors and the graph that they were made from."""

import os
import time

import networkx as nx
import torch
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
SCALE = float(os.environ.get("CASES_SCALE", "1"))
GRAPHS, NODES, STEP = 64, 300, 0.01


def described(seed):
    graph = nx.gnm_random_graph(NODES, 3 * NODES, seed=seed)
    for node in graph:
        graph.nodes[node].update(kind=f"n{node % 7}", charge=node * 0.1, at=(node, seed))
    for left, right in graph.edges:
        graph.edges[left, right].update(bond=f"b{(left + right) % 5}", length=left / (right + 1))
    return graph


class Graphs(Dataset):
    def __init__(self):
        self.graphs = [described(seed) for seed in range(GRAPHS)]
        self.edges = [torch.tensor(list(graph.edges)).T for graph in self.graphs]

    def __len__(self):
        return 20_000

    def __getitem__(self, i):
        return {"edges": self.edges[i % GRAPHS], "x": torch.rand(NODES, 16), "graph": self.graphs[i % GRAPHS]}


def to_batch(samples):
    return {
        "edges": torch.cat([sample["edges"] + k * NODES for k, sample in enumerate(samples)], 1),
        "x": torch.cat([sample["x"] for sample in samples]),
        "graph": [sample["graph"] for sample in samples],  # the loop never looks at it
    }


def main():
    loader = DataLoader(Graphs(), batch_size=32, shuffle=True, num_workers=2, collate_fn=to_batch)
    for step, batch in enumerate(loader):
        if step >= 120 * SCALE:
            break
        time.sleep(STEP)


if __name__ == "__main__":
    main()
