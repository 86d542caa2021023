"""The README and the pages in docs/: their Python runs from top to bottom; the reference has every public name once."""

import re

import jax
import jax.numpy as jnp
import optax
import pytest

import parsimony as pm
from helpers.pages import PAGES, ROOT, blocks
from helpers.public import PUBLIC


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if list(blocks(page))], ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page, capsys):
    namespace = {"__name__": "__main__"}
    with jax.numpy_rank_promotion("allow"):  # as a reader has it
        for line, code in blocks(page):
            exec(compile("\n" * line + code, str(page), "exec"), namespace)


def front_page():
    """What the README's code takes as given: a network of two layers that learns a sum, and its loop of training."""
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (64, 6))
    y = jnp.stack([x[:, 0] + x[:, 1], x[:, 2]], axis=1)
    params = {"hidden": {"kernel": jax.random.normal(keys[1], (6, 8)) / 2, "bias": jnp.zeros(8)}}
    params |= {"head": {"kernel": jax.random.normal(keys[2], (8, 2)) / 2, "bias": jnp.zeros(2)}}
    linear = lambda layer, x: x @ layer["kernel"] + layer["bias"][None]
    fn = lambda params, x: linear(params["head"], jax.nn.relu(linear(params["hidden"], x)))
    loss = lambda params: jnp.mean((fn(params, x) - y) ** 2)
    steps = 200

    def train(tx, params):
        def step(carry, _):
            params, opt_state = carry
            updates, opt_state = tx.update(jax.grad(loss)(params), opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), None

        return jax.lax.scan(step, (params, tx.init(params)), length=steps)[0]

    return {"params": params, "fn": fn, "x": x, "steps": steps, "train": train, "loss": loss, "pm": pm, "optax": optax}


@pytest.mark.slow
def test_the_code_of_the_front_page_gives_what_it_says(tmp_path, monkeypatch):
    """Masks of the stated sparsity, a fine-tuning that keeps to them, and a smaller network with the outputs of W̃."""
    monkeypatch.chdir(tmp_path)
    path, structure = (code for _, code in blocks(ROOT / "README.md"))
    namespace = front_page()
    exec(path, namespace)
    kernels = lambda tree: [tree["hidden"]["kernel"], tree["head"]["kernel"]]
    kept = sum(int(mask.sum()) for mask in kernels(namespace["masks"]))
    assert kept == sum(kernel.size for kernel in kernels(namespace["params"])) - int(0.9 * (48 + 16))
    for weights, mask in zip(kernels(namespace["pruned"]), kernels(namespace["masks"]), strict=True):
        assert ((weights != 0) <= mask).all()
    exec(structure, namespace)
    params, opt_state, small, x = (namespace[name] for name in ("params", "opt_state", "small", "x"))
    assert 0 < small.params["hidden"]["bias"].size < 8
    sparse = namespace["fn"](pm.sparse_params(params, opt_state), x)
    assert float(jnp.abs(small.fn(small.params, x) - sparse).max()) < 1e-5
    fn, again = pm.structure.load_compact("small")
    assert float(jnp.abs(fn(again, x) - sparse).max()) < 1e-5


def test_the_front_page_is_one_page():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130


def test_all_pages_but_these_have_code():
    """`test_commands.py` looks after the command lines of the others."""
    without = {"contributing", "experiments", "results"}
    assert {page.stem for page in PAGES if not list(blocks(page))} == without


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "experiments" / "README.md"], ids=lambda p: p.name)
def test_a_link_to_a_file_leads_to_one(page):
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\((?!http|#)([^)#]+)", prose):
        assert (page.parent / target).exists(), target


def test_the_reference_has_every_public_name_once():
    found = [
        name
        for page in (ROOT / "docs" / "reference").glob("*.md")
        for name in re.findall(r"^::: (\S+)$", page.read_text(), re.M)
    ]
    assert sorted(found) == sorted(name.replace("pm", "parsimony", 1) for name in PUBLIC)


def test_every_name_that_a_page_speaks_of_is_there():
    for page in (*PAGES, ROOT / "README.md", ROOT / "experiments" / "README.md"):
        for name in re.findall(r"\bpm\.(?:structure\.|theory\.)?\w+", page.read_text()):
            thing = pm
            for part in name.split(".")[1:]:
                assert hasattr(thing, part), f"{page.name}: {name}"
                thing = getattr(thing, part)
