import Glibc
import IR
import Tensors
import Testing

/// A network of blocks like those of a language model, with about `nodes` nodes.
private func network(nodes: Int) throws -> Model {
  let t = Symbol("T", in: 1...128)
  var builder = GraphBuilder(name: "main", role: "main", symbols: [t])
  let type = TensorType(.f32, [.symbol(t), 64])
  var x = builder.input("x", type)
  let position = builder.input("position", TensorType(.i32, [1]))
  var layer = 0
  while builder.graph.nodeSlots < nodes {
    func weight(_ name: String, _ sizes: [Int]) -> ValueID {
      builder.constant(
        Constant(
          name: "model.layers.\(layer).\(name).weight", type: TensorType(.f32, sizes),
          source: .random(seed: UInt64(builder.constants.count), deviation: 0.02)))
    }
    builder.origin = Origin("model.layers.\(layer).mlp")
    let cache = builder.state("k\(layer)", TensorType(.f32, [128, 64]))
    let n = try builder.emit(RMSNorm(), x, weight("norm", [64]))
    let gate = try builder.emit(MatMul(transposeB: true), n, weight("gate_proj", [64, 64]))
    let activated = try builder.emit(SiLU(), gate)
    let up = try builder.emit(MatMul(transposeB: true), n, weight("up_proj", [64, 64]))
    let product = try builder.emit(Multiply(), activated, up)
    let heads = try builder.emit(Reshape([.symbol(t), 2, 32]), product)
    let back = try builder.emit(Reshape([.symbol(t), 64]), heads)
    let stored = try builder.emit(CacheUpdate(), cache, back, position)
    builder.graph.setUpdate(ofState: layer, to: stored)
    let down = try builder.emit(MatMul(transposeB: true), back, weight("down_proj", [64, 64]))
    x = try builder.emit(Add(), x, down)
    layer += 1
  }
  builder.output("y", x)
  var model = Model(name: "network")
  model.functions = [builder.graph]
  model.constants = builder.constants
  model.compact()
  return model
}

/// The time that this thread has spent on a processor, which other processes do not lengthen much.
private func processorSeconds() -> Double {
  var time = timespec()
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
  return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
}

@Suite struct TextSpeedTests {
  /// Four times the nodes must not take much more than four times as long: three times as much is left for caches and noise.
  @Test func timeGrowsWithTheNumberOfNodes() throws {
    func best(_ model: Model) throws -> (print: Double, parse: Double, verify: Double) {
      var best = (print: Double.infinity, parse: Double.infinity, verify: Double.infinity)
      for _ in 0..<3 {
        let start = processorSeconds()
        let text = try Printer.print(model)
        let printed = processorSeconds()
        let back = try Parser.parse(text)
        let parsed = processorSeconds()
        try Verifier.verify(back)
        let verified = processorSeconds()
        best = (
          min(best.print, printed - start), min(best.parse, parsed - printed), min(best.verify, verified - parsed)
        )
        #expect(back == model)
      }
      return best
    }
    #if DEBUG
      let nodes = 2000
    #else
      let nodes = 10_000
    #endif
    let small = try best(try network(nodes: nodes / 4))
    let model = try network(nodes: nodes)
    let large = try best(model)
    func milliseconds(_ seconds: Double) -> String { "\((seconds * 10_000).rounded() / 10) ms" }
    print(
      "\(model.functions[0].nodeCount) nodes: print \(milliseconds(large.print)), parse \(milliseconds(large.parse)), "
        + "verify \(milliseconds(large.verify)), \(try Printer.print(model).utf8.count) bytes")
    #expect(large.print < 12 * small.print)
    #expect(large.parse < 12 * small.parse)
    #expect(large.verify < 12 * small.verify)
  }
}
