import Base
import TestSupport
import Testing

/// Writes PyTorch checkpoints with Python's own `pickle` and `zipfile`, PyTorch's classes replaced by stand-ins of the same
/// names.
enum TorchPickler {
  /// Runs Python code that uses the definitions of ``prelude``; nil, having said so, if there is no Python.
  static func run(_ code: String, _ arguments: [String] = []) throws -> TemporaryFolder? {
    guard ForeignMachine.isCommand("python3") else {
      Fixtures.skip("needs python3")
      return nil
    }
    let folder = try TemporaryFolder()
    try folder.write("make.py", prelude + code)
    let outcome = try Command.run("python3", [folder.path("make.py"), folder.path] + arguments)
    guard outcome.exitCode == 0 else { throw CompileError(.check, "python3 failed: \(outcome.errors)") }
    return folder
  }

  /// `tensor(type, sizes, values)`, `view(tensor, offset, sizes, strides)`, `save(name, object)`, `save_legacy(...)`.
  private static let prelude = """
    import collections, io, json, pickle, struct, sys, types, zipfile
    out = sys.argv[1] + '/'
    torch = types.ModuleType('torch'); utils = types.ModuleType('torch._utils')
    sys.modules['torch'] = torch; sys.modules['torch._utils'] = utils
    formats = {'DoubleStorage': 'd', 'FloatStorage': 'f', 'HalfStorage': 'e', 'BFloat16Storage': 'H', 'LongStorage': 'q',
               'IntStorage': 'i', 'ShortStorage': 'h', 'CharStorage': 'b', 'ByteStorage': 'B', 'BoolStorage': '?'}
    for name in list(formats) + ['UntypedStorage']:
      setattr(torch, name, type(name, (), {'__module__': 'torch', '__qualname__': name}))
    class Size(tuple):
      def __reduce__(self): return (Size, (tuple(self),))
    Size.__module__ = 'torch'; Size.__qualname__ = 'Size'; torch.Size = Size
    def function(name):
      def f(*a): pass
      f.__module__ = 'torch._utils'; f.__qualname__ = name; f.__name__ = name
      setattr(utils, name, f)
      return f
    v2, v3, parameter = function('_rebuild_tensor_v2'), function('_rebuild_tensor_v3'), function('_rebuild_parameter')
    class Storage:
      def __init__(self, kind, data): self.kind, self.data = kind, data
    class Tensor:
      def __init__(self, storage, offset, sizes, strides, v3=None):
        self.storage, self.offset, self.sizes, self.strides, self.v3 = storage, offset, sizes, strides, v3
    class Parameter:
      def __init__(self, data): self.data = data
    def contiguous(sizes):
      strides, s = [], 1
      for n in reversed(sizes): strides.insert(0, s); s *= n
      return tuple(strides)
    def tensor(kind, sizes, values):
      return Tensor(Storage(kind, struct.pack('<%d%s' % (len(values), formats[kind]), *values)), 0, tuple(sizes), contiguous(sizes))
    def view(t, offset, sizes, strides): return Tensor(t.storage, offset, tuple(sizes), tuple(strides))
    class Pickler(pickle.Pickler):
      def __init__(self, f, protocol, legacy):
        super().__init__(f, protocol); self.keys, self.order, self.legacy = {}, [], legacy
      def persistent_id(self, o):
        if not isinstance(o, Storage): return None
        if id(o) not in self.keys: self.keys[id(o)] = str(len(self.order)); self.order.append(o)
        n = len(o.data) // (1 if o.kind == 'UntypedStorage' else struct.calcsize(formats[o.kind]))
        return ('storage', getattr(torch, o.kind), self.keys[id(o)], 'cpu', n) + ((None,) if self.legacy else ())
      def reducer_override(self, o):
        if isinstance(o, Tensor):
          a = (o.storage, o.offset, o.sizes, o.strides, False, collections.OrderedDict())
          return (v3, a + (o.v3,)) if o.v3 is not None else (v2, a)
        if isinstance(o, Parameter): return (parameter, (o.data, True, collections.OrderedDict()))
        return NotImplemented
    def save(name, o, protocol=2, compress=False):
      f = io.BytesIO(); p = Pickler(f, protocol, False); p.dump(o)
      with zipfile.ZipFile(out + name, 'w', zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as z:
        z.writestr('m/data.pkl', f.getvalue()); z.writestr('m/byteorder', 'little'); z.writestr('m/version', '3\\n')
        for i, s in enumerate(p.order): z.writestr('m/data/%d' % i, s.data)
    def save_legacy(name, o, protocol=2):
      with open(out + name, 'wb') as f:
        pickle.dump(0x1950a86a20f9469cfc6c, f, protocol); pickle.dump(1001, f, protocol)
        pickle.dump({'protocol_version': 1001, 'little_endian': True, 'type_sizes': {'short': 2, 'int': 4, 'long': 4}}, f, protocol)
        p = Pickler(f, protocol, True); p.dump(o)
        pickle.dump([str(i) for i in range(len(p.order))], f, protocol)
        for s in p.order:
          f.write(struct.pack('<q', len(s.data) // (1 if s.kind == 'UntypedStorage' else struct.calcsize(formats[s.kind])))); f.write(s.data)

    """
}
