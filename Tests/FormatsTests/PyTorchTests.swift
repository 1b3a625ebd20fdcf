import Base
import Formats
import IR
import Tensors
import TestSupport
import Testing

@Suite struct PyTorchTests {
  private func read(_ path: String) throws -> TorchFile { try TorchFile(MappedFile(path: path)) }

  /// The numbers of a tensor, through its constant or recipe.
  static func numbers(_ tensor: CheckpointTensor) throws -> [Float] {
    var model = Model(name: "m")
    var builder = GraphBuilder(name: "main", role: "main")
    let value = try tensor.constant(into: &model, &builder)
    model.constants = builder.constants
    let type = builder.type(of: value)
    builder.output("y", value)
    let result = try ConstantEvaluator(model, builder.graph).tensor(value)
    return type.element == .f32 ? result.array(of: Float.self) : NumPyArray(result.view).floats
  }

  private static let objects = """
    a = tensor('FloatStorage', (2, 3), [1, 2, 3, 4, 5, 6])
    half = tensor('HalfStorage', (4,), [0.5, -1, 2, 0])
    o = collections.OrderedDict([
      ('a', a), ('transposed', view(a, 0, (3, 2), (1, 3))), ('column', view(a, 1, (2,), (3,))),
      ('row', view(a, 3, (3,), (1,))), ('expanded', view(a, 4, (2, 2), (0, 1))), ('scalar', view(a, 5, (), ())),
      ('empty', view(a, 6, (0, 3), (3, 1))), ('one', view(a, 2, (1, 1), (77, 5))),
      ('half', half), ('bfloat', tensor('BFloat16Storage', (2,), [0x3f80, 0xc000])),
      ('long', tensor('LongStorage', (2,), [1, -1])), ('bytes', tensor('ByteStorage', (3,), [7, 8, 9])),
      ('bool', tensor('BoolStorage', (2,), [True, False])), ('double', tensor('DoubleStorage', (1,), [0.25])),
      ('int', tensor('IntStorage', (1,), [-5])), ('short', tensor('ShortStorage', (1,), [-6])),
      ('char', tensor('CharStorage', (1,), [-7])), ('parameter', Parameter(tensor('FloatStorage', (2,), [8, 9]))),
      ('epoch', 3), ('loss', 0.5), ('name', 'x'), ('nothing', None), ('list', [1, (2, 3), {'k': {1, 2}}]),
      ('raw', b'\\x00\\xff'), ('big', 1 << 70), ('negative', -(1 << 40)), ('size', torch.Size((2, 3))),
      ('set', frozenset((1,))), ('flag', True)])

    """

  /// Every protocol and both forms give the same tensors.
  @Test func readsTensorsOfAllFormsAndProtocols() throws {
    let code =
      Self.objects + """
        for p in range(6):
          if p < 2: continue
          save('zip%d.pt' % p, o, p)
        save_legacy('legacy2.bin', o, 2); save_legacy('legacy4.bin', o, 4)

        """
    guard let folder = try TorchPickler.run(code) else { return }
    let expected: [(String, TensorType, [Float])] = [
      ("a", TensorType(.f32, [2, 3]), [1, 2, 3, 4, 5, 6]),
      ("transposed", TensorType(.f32, [3, 2]), [1, 4, 2, 5, 3, 6]), ("column", TensorType(.f32, [2]), [2, 5]),
      ("row", TensorType(.f32, [3]), [4, 5, 6]), ("expanded", TensorType(.f32, [2, 2]), [5, 6, 5, 6]),
      ("scalar", TensorType(.f32, [] as [Int]), [6]), ("empty", TensorType(.f32, [0, 3]), []),
      ("one", TensorType(.f32, [1, 1]), [3]), ("half", TensorType(.f16, [4]), [0.5, -1, 2, 0]),
      ("bfloat", TensorType(.bf16, [2]), [1, -2]), ("long", TensorType(.i64, [2]), [1, -1]),
      ("bytes", TensorType(.u8, [3]), [7, 8, 9]), ("bool", TensorType(.bool, [2]), [1, 0]),
      ("double", TensorType(.f64, [1]), [0.25]), ("int", TensorType(.i32, [1]), [-5]),
      ("short", TensorType(.i16, [1]), [-6]), ("char", TensorType(.i8, [1]), [-7]),
      ("parameter", TensorType(.f32, [2]), [8, 9]),
    ]
    for name in folder.names() where name != "make.py" {
      let file = try read(folder.path(name))
      #expect(file.tensors.map(\.name) == expected.map(\.0), "\(name)")
      #expect(file.tensors.map(\.type) == expected.map(\.1), "\(name)")
      for (tensor, (key, _, numbers)) in zip(file.tensors, expected) {
        #expect(try Self.numbers(tensor) == numbers, "\(name): \(key)")
      }
    }
  }

  @Test func readsUntypedStoragesAndWrappedDictionaries() throws {
    let code = """
      class dtype:
        def __init__(self, n): self.n = n
        def __reduce__(self): return self.n
      dtype.__module__ = 'torch'
      s = Storage('UntypedStorage', struct.pack('<4f', 1, 2, 3, 4))
      torch.float32 = dtype('float32'); torch.uint16 = dtype('uint16')
      save('v3.pt', {'w': Tensor(s, 2, (2,), (1,), torch.float32)})
      save('v3u.pt', {'w': Tensor(s, 2, (2,), (1,), torch.uint16)})
      save('wrapped.pt', {'epoch': 1, 'state_dict': {'w': tensor('FloatStorage', (1,), [5])}, 'optimizer': {'state': {}}})
      save('list.pt', [tensor('FloatStorage', (1,), [5])])
      """
    guard let folder = try TorchPickler.run(code) else { return }
    let file = try read(folder.path("v3.pt"))
    #expect(try file.tensors.map { try Self.numbers($0) } == [[3, 4]])
    expectFailure(.unsupported, "torch.uint16", "v3u.pt, byte") { _ = try read(folder.path("v3u.pt")) }
    #expect(try read(folder.path("wrapped.pt")).tensors.map(\.name) == ["w"])
    expectFailure(.input, "the checkpoint is a list") { _ = try read(folder.path("list.pt")) }
  }

  /// The four forms of a checkpoint that its folder may have give one graph over the same numbers.
  @Test func readsFoldersWithPyTorchWeights() throws {
    let checkpoint = TinyCheckpoint()
    let code = """
      spec = json.loads(sys.argv[2])
      import random
      random.seed(1)
      def made(part): return {n: tensor('FloatStorage', s, [random.uniform(-1, 1) for _ in range(max(1, __import__('math').prod(s)))]) for n, s in part}
      everything = made(spec)
      save('pytorch_model.bin', everything)
      save_legacy('legacy.pt', everything)
      shards = {}
      for i in range(2):
        name = 'pytorch_model-0000%d-of-00002.bin' % (i + 1)
        part = dict(list(everything.items())[i::2])
        save(name, part)
        shards.update({n: name for n in part})
      json.dump({'metadata': {'total_size': 0}, 'weight_map': shards}, open(out + 'pytorch_model.bin.index.json', 'w'))
      """
    let spec = "[" + checkpoint.tensors.map { "[\"\($0.name)\", \($0.sizes)]" }.joined(separator: ",") + "]"
    guard let folder = try TorchPickler.run(code, [spec]) else { return }
    try folder.write("config.json", JSON.object(checkpoint.config).text())
    func numbers(_ model: Model) throws -> [String: [UInt8]] {
      var result: [String: [UInt8]] = [:]
      for constant in model.constants.constants {
        guard case .archive(let archive, let range) = constant.source else { continue }
        result[constant.name] = Array(try model.archives[archive].file.slice(range))
      }
      return result
    }
    let whole = try folder.load()
    #expect(try numbers(whole).count == checkpoint.tensors.count)
    #expect(try numbers(FormatRegistry.load(folder.path("legacy.pt"))) == numbers(whole))
    #expect(try numbers(FormatRegistry.load(folder.path("pytorch_model.bin"))) == numbers(whole))
    let sharded = try TemporaryFolder()
    for name in folder.names() where name.contains("-of-") || name.contains("json") {
      try sharded.write(name, try MappedFile.contents(path: folder.path(name)))
    }
    #expect(try numbers(sharded.load()) == numbers(whole))
    let alone = try TemporaryFolder()
    let path = try alone.write("x.pt", try MappedFile.contents(path: folder.path("pytorch_model.bin")))
    expectFailure(.unsupported, "holds weights alone", "config.json") { _ = try FormatRegistry.load(path) }
  }

  /// Nothing outside the list is built, whatever the protocol and the opcode that names it.
  @Test func refusesGlobalsByName() throws {
    let code = """
      import os, subprocess
      class Evil:
        def __reduce__(self): return (os.system, ('touch ' + out + 'pwned',))
      class State:
        def __init__(self): self.x = 1
      for p in (0, 2, 4, 5): save('evil%d.pt' % p, {'w': Evil()}, p)
      save_legacy('evil.bin', {'w': Evil()})
      save('object.pt', {'w': State()})
      save('eval.pt', {'w': collections.OrderedDict([('a', type('E', (), {'__reduce__': lambda s: (eval, ('1',))})())])})
      """
    guard let folder = try TorchPickler.run(code) else { return }
    let system = ["posix.system", "nt.system"]
    for name in folder.names() where name.hasPrefix("evil") {
      expectFailure(.unsupported, "the pickle names '\(system[0])'", "\(name), byte") {
        _ = try read(folder.path(name))
      }
    }
    expectFailure(.unsupported, "the pickle names '__main__.State'") { _ = try read(folder.path("object.pt")) }
    expectFailure(.unsupported, "the pickle names '__builtin__.eval'") { _ = try read(folder.path("eval.pt")) }
    #expect(!folder.names().contains("pwned"))
  }
}
