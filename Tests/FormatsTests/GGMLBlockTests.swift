import Base
import Formats
import IR
import TestSupport
import Tensors
import Testing

@Suite struct GGMLBlockTests {
  /// 48 blocks of each type and their numbers, recorded from llama.cpp's own code. Equal to the last bit: every number
  /// is a product or sum of the same f32 numbers in the same order.
  @Test(arguments: GGMLBlock.allCases)
  func equalsRecordedNumbers(_ block: GGMLBlock) throws {
    guard let path = Fixtures.path("gguf_blocks.npz") else { return }
    let archive = try NumPyArchive(path: path)
    let name = block.rawValue.uppercased()
    let bytes = try archive.require(name + ".bytes", file: path)
    let values = try archive.require(name + ".values", file: path)
    #expect(bytes.shape == [48, block.byteCount] && values.shape == [48, block.length])

    let codes = Tensor(TensorType(.u8, bytes.shape))
    bytes.bytes.withUnsafeBytes { codes.mutableView.bytes.copyMemory(from: $0) }
    let op = DequantizeGGML(block)
    let type = try #require(try op.inferTypes([codes.type]).first)
    #expect(type == TensorType(.f32, values.shape))
    let numbers = Tensor(type)
    try op.evaluate([codes.view], into: [numbers.mutableView])
    let found = Array(numbers.view.bytes.bindMemory(to: Float.self))
    let expected = values.converted(to: .f32).bytes.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
    #expect(expected.contains { $0 != 0 })
    for (index, (x, y)) in zip(found, expected).enumerated() where !(x == y || x.isNaN && y.isNaN) {
      Issue.record("\(block), number \(index): \(x), recorded \(y)")
      break
    }
  }

  /// The same for the types that are block formats of mcc.
  @Test(arguments: [("MXFP4", BlockFormat.mxfp4), ("IQ4_NL", .levels(.iq4nl, 32))])
  func blockFormatsEqualRecordedNumbers(_ name: String, _ format: BlockFormat) throws {
    guard let path = Fixtures.path("gguf_blocks.npz") else { return }
    let archive = try NumPyArchive(path: path)
    let bytes = try archive.require(name + ".bytes", file: path)
    let values = try archive.require(name + ".values", file: path)
    #expect(bytes.shape == [48, format.rowBytes(columns: 32)] && values.shape == [48, 32])
    var found = [Float](repeating: .nan, count: 48 * 32)
    bytes.bytes.withUnsafeBytes { source in
      found.withUnsafeMutableBufferPointer { format.dequantize(source, columns: 32, into: $0) }
    }
    let expected = values.converted(to: .f32).bytes.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
    #expect(expected.contains { $0 != 0 })
    let isEqual = zip(found, expected).allSatisfy { $0 == $1 || $0.isNaN && $1.isNaN }
    #expect(isEqual, "\(name)")
  }

  /// The smallest exponents of a block's scale give subnormal numbers, the largest stays finite.
  @Test func scalesOfMicroscaling() {
    func first(_ exponent: UInt8) -> Float {
      let bytes: [UInt8] = [exponent, 0x02] + [UInt8](repeating: 0, count: 15)
      var values = [Float](repeating: .nan, count: 32)
      bytes.withUnsafeBytes {
        if let base = $0.baseAddress { BlockFormat.mxfp4.dequantizeRow(base, columns: 32, into: &values) }
      }
      return values[0]
    }
    #expect([0, 1, 2, 127, 254].map { first($0) } == [0x1p-127, 0x1p-126, 0x1p-125, 1, 0x1p127])
  }
}
