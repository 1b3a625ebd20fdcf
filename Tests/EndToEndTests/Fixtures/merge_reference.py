"""Random checkpoints of several types, and merges of them computed with NumPy.

make FOLDER        writes a, b, c and base.safetensors, and the folders of two Llamas, x and y, with their ids
check FOLDER       compares merged files, as jobs.json lists them, with what the formulas give in f64
regression FOLDER  compares the first layer of merged Llamas with the solution of its normal equations
"""
import json, math, sys
import numpy as np

command, folder = sys.argv[1], sys.argv[2]
NAMES = {'F64': np.float64, 'F32': np.float32, 'F16': np.float16, 'BF16': np.uint16, 'I64': np.int64}
# Bits of the fraction and the least exponent.
FORMS = {'F64': (52, -1022), 'F32': (23, -126), 'F16': (10, -14), 'BF16': (7, -126)}


def write(path, tensors):
    header, data = {}, b''
    for name, (kind, array) in sorted(tensors.items(), key=lambda e: -e[1][1].itemsize):
        raw = np.ascontiguousarray(array).tobytes()
        header[name] = {'dtype': kind, 'shape': list(array.shape), 'data_offsets': [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b' ' * (-len(text) % 8)
    open(path, 'wb').write(len(text).to_bytes(8, 'little') + text + data)


def read(path):
    raw = open(path, 'rb').read()
    size = int.from_bytes(raw[:8], 'little')
    found = {}
    for name, entry in json.loads(raw[8:8 + size]).items():
        if name == '__metadata__':
            continue
        begin, end = (8 + size + o for o in entry['data_offsets'])
        array = np.frombuffer(raw[begin:end], NAMES[entry['dtype']]).reshape(entry['shape'])
        if entry['dtype'] == 'BF16':
            array = (array.astype(np.uint32) << 16).view(np.float32)
        found[name] = (entry['dtype'], array)
    return found


def bf16(x):
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def make():
    random = np.random.default_rng(7)
    shapes = {'matrix': ('F32', (37, 131)), 'narrow': ('BF16', (3, 1409)), 'half': ('F16', (17, 5)),
              'vector': ('F32', (9,)), 'scalar': ('F32', ()), 'wide': ('F64', (5, 3)), 'zero': ('F32', (4, 3)),
              'onesided': ('BF16', (6, 2)), 'balanced': ('F32', (8,)), 'empty': ('F32', (0, 4)), 'ids': ('I64', (3,))}
    base = {name: random.standard_normal(shape) for name, (kind, shape) in shapes.items()}
    step = random.standard_normal(8)
    for index, file in enumerate(['base', 'a', 'b', 'c']):
        tensors = {}
        for name, (kind, shape) in shapes.items():
            x = base[name] + (0 if file == 'base' else 0.3 * random.standard_normal(shape))
            if name == 'zero' or (name == 'onesided' and file in ('a', 'base')):
                x = np.zeros(shape)
            if name == 'balanced':
                # Differences of a and b that cancel: no sign is elected.
                x = np.round(base[name] * 8) / 8 + {'base': 0, 'a': 1, 'b': -1, 'c': 0}[file] * np.round(step * 8) / 8
            if kind == 'I64':
                x = np.arange(3)
            x = np.asarray(x)
            tensors[name] = (kind, bf16(x) if kind == 'BF16' else x.astype(NAMES[kind]))
        write(f'{folder}/{file}.safetensors', tensors)
    make_llamas(random)


def make_llamas(random):
    import os
    D, F, V, H, KV = 16, 24, 32, 4, 2
    layer = 'model.layers.0.'
    shapes = {'model.embed_tokens.weight': (V, D), 'lm_head.weight': (V, D), 'model.norm.weight': (D,),
              layer + 'input_layernorm.weight': (D,), layer + 'post_attention_layernorm.weight': (D,),
              layer + 'self_attn.q_proj.weight': (D, D), layer + 'self_attn.k_proj.weight': (D * KV // H, D),
              layer + 'self_attn.v_proj.weight': (D * KV // H, D), layer + 'self_attn.o_proj.weight': (D, D),
              layer + 'mlp.gate_proj.weight': (F, D), layer + 'mlp.up_proj.weight': (F, D),
              layer + 'mlp.down_proj.weight': (D, F)}
    config = {'architectures': ['LlamaForCausalLM'], 'model_type': 'llama', 'hidden_size': D, 'intermediate_size': F,
              'num_hidden_layers': 1, 'num_attention_heads': H, 'num_key_value_heads': KV, 'vocab_size': V,
              'max_position_embeddings': 64, 'rms_norm_eps': 1e-5, 'rope_theta': 10000.0, 'hidden_act': 'silu',
              'tie_word_embeddings': False, 'torch_dtype': 'float32'}
    for name, low in [('x', 0), ('y', V // 2)]:
        os.mkdir(f'{folder}/{name}')
        tensors = {key: ('F32', (random.standard_normal(shape) * 0.3 + (1 if len(shape) == 1 else 0)).astype(np.float32))
                   for key, shape in shapes.items()}
        write(f'{folder}/{name}/model.safetensors', tensors)
        json.dump(config, open(f'{folder}/{name}/config.json', 'w'))
        # The texts of the two have no token in common.
        np.save(f'{folder}/{name}.npy', random.integers(low, low + V // 2, (5, 21)).astype(np.int64))


def splitmix(seed, count):
    with np.errstate(over='ignore'):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def merged(job, name, tensors, base):
    method, weights = job['method'], job.get('weights', [1.0] * len(tensors))
    scale, density = job.get('scale', 1.0), job.get('density', 1.0)
    if method in ('mean', 'mwa'):
        if method == 'mwa':
            power = job['penalty'] * (-1 if job['metric'] == 'loss' else 1)
            weights = [v ** power for v in job['values']]
        return sum(w * x for w, x in zip(weights, tensors)) / sum(weights)
    if method == 'slerp':
        a, b = tensors
        t, size = job['t'], np.linalg.norm(a) * np.linalg.norm(b)
        cosine = (a * b).sum() / size if size > 0 else 1.0
        if 1 - cosine ** 2 < 1e-12:
            return (1 - t) * a + t * b
        angle = math.acos(cosine)
        return (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)
    deltas = [x - base for x in tensors]
    if method == 'dare':
        seeds = splitmix(job['seeds'][name], len(deltas))
        for i, d in enumerate(deltas):
            kept = ((splitmix(seeds[i], d.size) >> np.uint64(11)) * 2.0 ** -53 < density).reshape(d.shape)
            deltas[i] = np.where(kept, d / density, 0)
    if method != 'ties':
        return base + scale * sum(w * d for w, d in zip(weights, deltas))
    for i, d in enumerate(deltas):
        keep = math.ceil(density * d.size)
        if d.size:
            deltas[i] = np.where(np.abs(d) >= np.sort(np.abs(d).ravel())[-keep], d, 0)
    sign = np.sign(sum(w * d for w, d in zip(weights, deltas)))
    agree = [(np.sign(d) == sign) & (d != 0) for d in deltas]
    top = sum(w * d * a for w, d, a in zip(weights, deltas, agree))
    share = sum(w * a for w, a in zip(weights, agree))
    return base + scale * np.divide(top, share, out=np.zeros_like(base), where=share > 0)


def bound(exact, size, kind):
    """Half a unit in the last place of the type, and the rounding of sums in f64 of numbers of that size."""
    fraction, least = FORMS[kind]
    exponent = np.maximum(np.floor(np.log2(np.maximum(np.abs(exact), 1e-300))), least)
    return 0.5 * 2.0 ** (exponent - fraction) + 1e-15 * size


def check():
    files = {name: read(f'{folder}/{name}.safetensors') for name in ('base', 'a', 'b', 'c')}
    for job in json.load(open(f'{folder}/jobs.json')):
        found = read(f"{folder}/{job['output']}")
        assert list(found) and set(found) == set(files['a']), job
        for name, (kind, array) in found.items():
            assert kind == files['a'][name][0] and array.shape == files['a'][name][1].shape, (job, name)
            if kind == 'I64' or name not in job.get('names', [name]):
                kept = files[job.get('unselected', 'a')][name][1]
                assert array.tobytes() == kept.tobytes(), (job, name)
                continue
            tensors = [files[i][name][1].astype(np.float64) for i in job['inputs']]
            base = files['base'][name][1].astype(np.float64)
            exact = merged(job, name, tensors, base)
            size = np.max([np.abs(x) for x in tensors + [base]], 0)
            worst = (np.abs(array.astype(np.float64) - exact) - bound(exact, size, kind)).max(initial=0)
            assert worst <= 0, (job, name, worst)
    print('equal')


def regression():
    x, y = read(f'{folder}/x/model.safetensors'), read(f'{folder}/y/model.safetensors')
    ids = [np.load(f'{folder}/{n}.npy').ravel() for n in 'xy']
    head = 'model.layers.0.'

    def value(tensors, name):
        return tensors[name][1].astype(np.float64)

    for method, alpha in [('regmean', 0.9), ('regmean++', 1.0)]:
        found = read(f'{folder}/{method}/model.safetensors')
        mean = {name: ('F32', (value(x, name) + value(y, name)) / 2) for name in x}
        grams = []
        for tensors, own in zip((x, y), ids):
            source = tensors if method == 'regmean' else mean
            e = value(source, 'model.embed_tokens.weight')[own]
            e = e / np.sqrt((e ** 2).mean(1, keepdims=True) + 1e-5) * value(source, head + 'input_layernorm.weight')
            gram = e.T @ e
            grams.append(alpha * gram + (1 - alpha) * np.diag(np.diag(gram)))
        for part in 'qkv':
            name = f'{head}self_attn.{part}_proj.weight'
            top = sum(g @ value(t, name).T for g, t in zip(grams, (x, y)))
            exact = np.linalg.solve(sum(grams), top).T
            error = np.abs(value(found, name) - exact).max() / np.abs(exact).max()
            # Inputs in f32, and a condition of some hundreds.
            assert error < 1e-4, (method, name, error)
            assert np.abs(value(mean, name) - exact).max() / np.abs(exact).max() > 0.05
        for name in ('model.norm.weight', 'model.embed_tokens.weight'):
            assert np.array_equal(found[name][1], mean[name][1].astype(np.float32)), name
    print('equal')


{'make': make, 'check': check, 'regression': regression}[command]()
