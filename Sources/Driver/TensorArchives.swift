import Base
import Formats
import IR
import Tensors

/// Tensors of a function from and to `.npy` and `.npz` files.
package enum TensorArchives {
  /// The inputs of `function` from files: `path` for a function of one input or an archive with their names, or
  /// `name=path`.
  package static func inputs(_ arguments: [String], of function: Graph) throws -> [Tensor] {
    var found: [String: Tensor] = [:]
    let names = function.inputs.map { function[$0].name }
    func add(_ name: String, _ array: NumPyArray, from path: String) throws {
      guard let index = names.firstIndex(of: name) else {
        throw CompileError(
          .usage, "'\(path)' gives '\(name)', but the inputs are \(names.map { "'\($0)'" }.joined(separator: ", "))")
      }
      guard
        found.updateValue(try convert(array, to: function.type(of: function.inputs[index]), name), forKey: name) == nil
      else { throw CompileError(.usage, "the input '\(name)' is given twice") }
    }
    for argument in arguments {
      if let equals = argument.firstIndex(of: "="), names.contains(String(argument[..<equals])) {
        let path = String(argument[argument.index(after: equals)...])
        try add(String(argument[..<equals]), try single(path), from: path)
      } else {
        let archive = try NumPyArchive(path: argument)
        if names.count == 1, archive.arrays.count == 1 {
          try add(names[0], archive.arrays[0], from: argument)
        } else {
          for (name, array) in zip(archive.names, archive.arrays) { try add(name, array, from: argument) }
        }
      }
    }
    return try names.map { name in
      guard let tensor = found[name] else { throw CompileError(.usage, "the input '\(name)' is missing") }
      return tensor
    }
  }

  /// Samples of the inputs of a function: an archive with an array per input, or with one for a function of one input,
  /// each with samples stacked along its first axis (of the shape of the input, with or without its first axis of size
  /// 1). Samples that are left over where the input's own first size is larger than 1 are not used.
  ///
  /// A single sample may lack the first axis. Infinities may be masks; what is no number (NaN) is an error. A folder stands for its files `.npy` and `.npz` in the order of their
  /// names, each such an archive.
  package static func samples(_ path: String, of function: Graph) throws -> [[Tensor]] {
    guard let folder = try SampleFolder(path) else { return try samples(inFile: path, of: function) }
    return try folder.files.flatMap { try samples(inFile: $0, of: function) }
  }

  private static func samples(inFile path: String, of function: Graph) throws -> [[Tensor]] {
    let archive = try NumPyArchive(path: path)
    var columns: [[Tensor]] = []
    for input in function.inputs {
      let name = function[input].name
      let index = archive.names.firstIndex(of: name) ?? archive.names.firstIndex(of: "input")
      guard let index = index ?? (archive.arrays.count == 1 ? 0 : nil),
        function.inputs.count == 1 || archive.names[index] == name
      else {
        throw CompileError(
          .input, "'\(path)' has no array '\(name)'",
          notes: ["it has \(archive.names.map { "'\($0)'" }.joined(separator: ", "))"])
      }
      let type = function.type(of: input).substituting { .fixed(max(1, $0.minimum)) }
      columns.append(try split(archive.arrays[index], as: type, name))
      for (number, tensor) in (columns.last ?? []).enumerated() where type.element.isFloat {
        guard let place = tensor.view.doubles.firstIndex(where: \.isNaN) else { continue }
        throw CompileError(
          .input, "'\(path)' has what is not a number (NaN) in sample \(number) of '\(name)', at place \(place)")
      }
    }
    let count = columns.map(\.count).min() ?? 0
    return (0..<count).map { run in columns.map { $0[run] } }
  }

  /// The samples of an array, each of a type with known sizes.
  private static func split(_ array: NumPyArray, as type: TensorType, _ name: String) throws -> [Tensor] {
    let sizes = type.shape.fixedSizes ?? []
    let each = sizes.reduce(1, *)
    var inner = Array(array.shape.dropFirst())
    if inner.count == sizes.count, inner.first == sizes.first { inner = Array(inner.dropFirst()) }
    // One sample by itself.
    if sizes.first == 1, array.shape == Array(sizes.dropFirst()) { inner = array.shape }
    guard !sizes.isEmpty, each > 0, !array.shape.isEmpty, inner == Array(sizes.dropFirst()) else {
      throw CompileError(
        .input,
        "the samples of '\(name)' have the shape \(array.shape), expected "
          + "[\((["N"] + sizes.dropFirst().map(String.init)).joined(separator: ", "))]")
    }
    let runs = array.count / each, bytes = array.type.byteCount * each
    return try (0..<runs).map { run in
      let part = NumPyArray(array.type, sizes, bytes: Array(array.bytes[(run * bytes)..<((run + 1) * bytes)]))
      return try convert(part, to: type, name)
    }
  }

  private static func single(_ path: String) throws -> NumPyArray {
    let archive = try NumPyArchive(path: path)
    guard archive.arrays.count == 1 else {
      throw CompileError(.input, "'\(path)' holds \(archive.arrays.count) arrays, expected one")
    }
    return archive.arrays[0]
  }

  /// An array in the element type of an input, if no number is lost by more than rounding.
  private static func convert(_ array: NumPyArray, to type: TensorType, _ name: String) throws -> Tensor {
    let (from, to) = (array.type, type.element)
    guard from == to || (from.isFloat && to.isFloat) || (from.isInteger && to.isInteger) else {
      throw CompileError(.input, "input '\(name)' is of type \(from.rawValue), expected \(to.rawValue)")
    }
    let converted = array.converted(to: to)
    guard from.isFloat || converted.converted(to: from) == array else {
      throw CompileError(.input, "input '\(name)' has numbers that \(to.rawValue) cannot hold")
    }
    return converted.tensor
  }

  /// Seeded inputs: floats in a normal distribution, token ids below `vocabulary`, other whole numbers 0; symbolic sizes
  /// take `size`, bounded by their ranges.
  package static func seeded(_ function: Graph, seed: UInt64, size: Int = 8) -> [Tensor] {
    var generator = SplitMix64(seed: seed)
    return function.inputs.map { id in
      let type = function.type(of: id).substituting { .fixed(min(max(size, $0.minimum), $0.maximum)) }
      let tensor = Tensor(type)
      guard type.element.isFloat else { return tensor }
      let values = (0..<tensor.view.count).map { _ in
        // The sum of twelve uniform numbers less six is about normally distributed (Irwin-Hall).
        (0..<12).reduce(-6.0) { sum, _ in sum + generator.uniform() }
      }
      values.withUnsafeBytes { convertRow($0, .f64, into: tensor.mutableView.bytes, type.element) }
      return tensor
    }
  }
}
