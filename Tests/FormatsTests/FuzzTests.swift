import Base
import Formats
import Glibc
import IR
import Tensors
import TestSupport
import Testing

/// A reader with small valid files to start from.
struct FuzzTarget: Sendable, CustomTestStringConvertible {
  var name: String
  /// The name of the file that is written.
  var file: String
  var corpus: @Sendable () throws -> [[UInt8]]
  /// Other files of the folder.
  var others: [String: [UInt8]] = [:]
  var load: @Sendable (String) throws -> Void

  var testDescription: String { name }

  static let all: [FuzzTarget] = [
    FuzzTarget(
      name: "gguf", file: "m.gguf",
      corpus: { [0, 2, 8, 20].map { GGUFBytes.llama(type: $0).bytes } },
      load: { try Verifier.verify(FormatRegistry.load($0)) }),
    FuzzTarget(
      name: "safetensors", file: "m.safetensors",
      corpus: { [FileBytes.safetensors([("a", [2, 3]), ("b", [5])]), FileBytes.safetensors("{}")] },
      load: { path in
        let file = try SafetensorsFile(MappedFile(path: path))
        for tensor in file.tensors { _ = try file.file.slice(tensor.range).reduce(0) { $0 &+ Int($1) } }
      }),
    FuzzTarget(
      name: "pytorch", file: "m.pt",
      corpus: { [TorchBytes.zip(TorchBytes.tensor(count: 4, offset: 0, size: 4, stride: 1)), TorchBytes.legacy()] },
      load: { path in
        for tensor in try TorchFile(MappedFile(path: path)).tensors { _ = try PyTorchTests.numbers(tensor) }
      }),
    FuzzTarget(
      name: "numpy", file: "m.npz",
      corpus: {
        let array = NumPyArray([1, 2, 3, 4, 5, 6] as [Float], [2, 3]).npyBytes
        return [array, ZipBytes.stored([("a.npy", array), ("b.npy", NumPyArray([1] as [Int64], []).npyBytes)])]
      },
      load: { _ = try NumPyArchive(path: $0, limit: 1 << 24) }),
    FuzzTarget(
      name: "llama2.c", file: "m.bin",
      corpus: { (0...2).map { Llama2CTests.Small(version: $0).bytes() } },
      load: { try Verifier.verify(FormatRegistry.load($0)) }),
    FuzzTarget(
      name: "onnx", file: "m.onnx",
      corpus: { [try MappedFile.contents(path: Fixtures.packageRoot + "/Examples/keyword_spotting/kws.onnx")] },
      load: { try Verifier.verify(FormatRegistry.load($0)) }),
    FuzzTarget(
      name: "config.json", file: "config.json",
      corpus: { [Array(JSON.object(TinyCheckpoint().config).text().utf8)] },
      others: ["model.safetensors": FileBytes.safetensors(TinyCheckpoint().tensors)],
      load: { try Verifier.verify(FormatRegistry.load(ArchivePath.folder(of: $0))) }),
    FuzzTarget(
      name: "audit", file: "m",
      corpus: {
        [
          GGUFBytes.llama().bytes, FileBytes.safetensors([("a", [2, 3])]),
          TorchBytes.zip(TorchBytes.tensor(count: 4, offset: 0, size: 4, stride: 1)), TorchBytes.legacy(),
          try MappedFile.contents(path: Fixtures.packageRoot + "/Examples/keyword_spotting/kws.onnx"),
        ]
      },
      load: { path in
        let report = try Audit.run(path)
        guard report.isAccepted else { throw CompileError(.input, "\(report.lines)") }
      }),
  ]
}

/// PyTorch checkpoints written by hand.
enum TorchBytes {
  /// A zip archive whose only pickle is `code`, with one storage of 16 bytes called 0.
  static func zip(_ code: [UInt8], _ others: [(String, [UInt8])] = []) -> [UInt8] {
    ZipBytes.stored([("m/data.pkl", code), ("m/data/0", [UInt8](repeating: 1, count: 16))] + others)
  }

  /// A pickle of `{'w': tensor}` with a storage of `count` f32, and the tensor's offset, size and stride.
  static func tensor(count: Int32, offset: Int32, size: Int32, stride: Int32) -> [UInt8] {
    func int(_ value: Int32) -> [UInt8] { [0x4A] + FileBytes.littleEndian(value) }
    func text(_ text: String) -> [UInt8] { [0x58] + FileBytes.littleEndian(UInt32(text.utf8.count)) + Array(text.utf8) }
    func global(_ module: String, _ name: String) -> [UInt8] { Array("c\(module)\n\(name)\n".utf8) }
    var code: [UInt8] = [0x80, 2] + Array("}(".utf8) + text("w") + global("torch._utils", "_rebuild_tensor_v2")
    code += Array("((".utf8) + text("storage") + global("torch", "FloatStorage") + text("0") + text("cpu") + int(count)
    code += Array("tQ".utf8) + int(offset) + int(size) + [0x85] + int(stride) + [0x85, 0x89]
    code += global("collections", "OrderedDict") + Array(")RtRu.".utf8)
    return code
  }

  /// The same in the legacy form.
  static func legacy() -> [UInt8] {
    let magic: [UInt8] = [0x80, 2, 0x8A, 0x0A, 0x6C, 0xFC, 0x9C, 0x46, 0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19, 0x2E]
    let version: [UInt8] = [0x80, 2, 0x4D, 0xE9, 0x03, 0x2E], system: [UInt8] = [0x80, 2] + Array("}.".utf8)
    let keys: [UInt8] = [0x80, 2] + Array("]X\u{1}\0\0\00a.".utf8)
    let storage = FileBytes.littleEndian(Int64(4)) + [UInt8](repeating: 2, count: 16)
    return magic + version + system + tensor(count: 4, offset: 0, size: 4, stride: 1) + keys + storage
  }
}

/// Changes valid files at random and gives them to their readers: an error is right, a crash ends the run.
///
/// Part of the test suite with a fixed number of cases; `make fuzz` sets FUZZ_SECONDS, runs each target for so long under
/// the address sanitizer, and checks memory as well.
@Suite(.serialized) struct FuzzTests {
  static let seconds = getenv("FUZZ_SECONDS").flatMap { Double(String(cString: $0)) }

  /// One of several ways to damage a file.
  private static func mutate(_ bytes: [UInt8], _ corpus: [[UInt8]], _ random: inout SplitMix64) -> [UInt8] {
    var form = bytes
    for _ in 0...random.int(below: 4) {
      guard !form.isEmpty else { break }
      let place = random.int(below: form.count)
      switch random.int(below: 8) {
      case 0: form[place] = UInt8(truncatingIfNeeded: random.next())
      case 1: form[place] = [0, 1, 0x7F, 0x80, 0xFE, 0xFF][random.int(below: 6)]
      case 2: form[place] ^= 1 << UInt8(random.int(below: 8))
      case 3:
        // A telling number of 32 or 64 bits.
        let telling: [UInt64] = [0, 1, .max, 1 << 63, 1 << 62 - 1, 1 << 31, 1 << 32, 0x7FFF_FFFF, UInt64(form.count)]
        let value = FileBytes.littleEndian(telling[random.int(below: telling.count)])
        for (index, byte) in value.prefix(random.int(below: 2) == 0 ? 4 : 8).enumerated()
        where place + index < form.count {
          form[place + index] = byte
        }
      case 4: form.removeLast(form.count - place)
      case 5: form.removeSubrange(place..<min(form.count, place + 1 + random.int(below: 16)))
      case 6:
        let end = min(form.count, place + 1 + random.int(below: 64))
        form.insert(contentsOf: form[place..<end], at: random.int(below: form.count))
      default:
        let other = corpus[random.int(below: corpus.count)]
        guard !other.isEmpty else { break }
        let start = random.int(below: other.count)
        let part = other[start..<min(other.count, start + 1 + random.int(below: 64))]
        form.replaceSubrange(place..<min(form.count, place + part.count), with: part)
      }
    }
    return form
  }

  /// A field of `/proc/self/status` in bytes.
  private static func status(_ key: String) -> Int {
    guard let file = fopen("/proc/self/status", "r") else { return 0 }
    defer { fclose(file) }
    var line = [CChar](repeating: 0, count: 256)
    while fgets(&line, 256, file) != nil {
      let text = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
      guard text.hasPrefix(key) else { continue }
      return text.split(whereSeparator: { $0 == " " || $0 == "\t" }).compactMap { Int($0) }.first.map { $0 << 10 } ?? 0
    }
    return 0
  }

  @Test(arguments: FuzzTarget.all)
  func damagedFilesNeverCrash(target: FuzzTarget) throws {
    let folder = try TemporaryFolder()
    for (name, bytes) in target.others { try folder.write(name, bytes) }
    let corpus = try target.corpus()
    for bytes in corpus { try target.load(try folder.write(target.file, bytes)) }
    var random = SplitMix64(seed: Self.seconds == nil ? 5 : UInt64.random(in: 0 ... .max))
    let largest = corpus.map(\.count).max() ?? 0
    // Cases of a megabyte take their time.
    let limit = largest > 1 << 15 ? 60 : 1000
    let watch = Stopwatch()
    var (cases, accepted, slowest) = (0, 0, 0.0)
    // Resets the peak, so that it is that of these cases.
    if Self.seconds != nil, let file = fopen("/proc/self/clear_refs", "w") {
      fputs("5", file)
      fclose(file)
    }
    let before = Self.status("VmRSS")
    while Self.seconds.map({ watch.seconds < $0 }) ?? (cases < limit) {
      let form = Self.mutate(corpus[random.int(below: corpus.count)], corpus, &random)
      let path = try folder.write(target.file, form)
      let one = Stopwatch()
      do {
        try target.load(path)
        accepted += 1
      } catch is CompileError {
      } catch {
        Issue.record("case \(cases): threw \(error), not a CompileError")
      }
      slowest = max(slowest, one.seconds)
      cases += 1
    }
    // Other tests run beside this one without the variable.
    #expect(slowest < (Self.seconds == nil ? 10 : 2), "\(target.name): a case of \(slowest) s")
    let peak = max(0, Self.status("VmHWM") - before)
    if Self.seconds != nil {
      print("fuzz \(target.name): \(cases) cases, \(accepted) accepted, slowest \(slowest) s, \(peak >> 20) MiB")
      // The sanitizer keeps freed memory for a while: 256 MiB by default.
      #expect(peak <= 4 * largest + (64 + 256) << 20)
    }
    #expect(cases > 0 && accepted < cases)
  }
}
