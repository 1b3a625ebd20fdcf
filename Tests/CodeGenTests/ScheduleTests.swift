import CodeGen
import IR
import Tensors
import Testing

@Suite struct ScheduleTests {
  private func schedule(_ model: Model, _ target: Target = .portable) throws -> Schedule {
    var model = model
    var context = PassContext()
    let generator = CodeGenerator(target: target)
    try generator.lower(&model, &context)
    return try generator.schedule(model)
  }

  private func models() throws -> [Model] {
    [
      try LoweringModels.blocks(1), try LoweringModels.blocks(5), try LoweringModels.blocks(3, format: .w8c),
      try LoweringModels.decoder(layers: 3), try LoweringModels.images(),
    ]
  }

  private func range(_ argument: Schedule.Argument, _ schedule: Schedule, _ function: Schedule.Function) -> Range<Int>?
  {
    switch argument {
    case .buffer(let index, _):
      let buffer = function.buffers[index]
      return buffer.offset..<buffer.offset + buffer.byteCount
    case .state(let index, _):
      let state = schedule.states[index]
      return state.offset..<state.offset + (state.type.byteCount ?? 0)
    case .weight, .size: return nil
    }
  }

  /// Runs the steps on paper: every byte that a step reads must have been written by the step that is meant to.
  @Test func noBufferIsOverwrittenBeforeItsLastReader() throws {
    for model in try models() {
      let schedule = try schedule(model)
      for function in schedule.functions {
        var owner = [Int](repeating: -1, count: schedule.arenaBytes)
        for index in function.buffers.indices where function.buffers[index].role == .input {
          for byte in function.buffers[index].offset..<function.buffers[index].offset
            + function.buffers[index].byteCount
          {
            owner[byte] = index
          }
        }
        for step in function.steps {
          for (position, argument) in step.arguments.enumerated() where !step.writes.contains(position) {
            guard case .buffer(let index, _) = argument, let range = range(argument, schedule, function) else {
              continue
            }
            #expect(range.allSatisfy { owner[$0] == index }, "\(step.name) of \(model.name) reads what is gone")
          }
          for position in step.writes {
            guard let range = range(step.arguments[position], schedule, function) else { continue }
            guard case .buffer(let index, _) = step.arguments[position] else { continue }
            for byte in range { owner[byte] = index }
          }
        }
        for output in function.outputs {
          let buffer = function.buffers[output.buffer]
          #expect((buffer.offset..<buffer.offset + buffer.byteCount).allSatisfy { owner[$0] == output.buffer })
        }
      }
    }
  }

  @Test func barriersSeparateDependentSteps() throws {
    for model in try models() {
      let schedule = try schedule(model)
      for function in schedule.functions {
        for (later, step) in function.steps.enumerated() {
          let begin = (0...later).last { function.steps[$0].barrier } ?? 0
          for earlier in begin..<max(begin, later) {
            for (a, first) in function.steps[earlier].arguments.enumerated() {
              for (b, second) in step.arguments.enumerated() {
                guard function.steps[earlier].writes.contains(a) || step.writes.contains(b),
                  let left = range(first, schedule, function), let right = range(second, schedule, function)
                else { continue }
                #expect(!left.overlaps(right), "\(function.steps[earlier].name) and \(step.name) run side by side")
              }
            }
          }
        }
      }
    }
  }

  @Test func layersBecomeALoop() throws {
    let blocks = try schedule(try LoweringModels.blocks(5)).functions[0]
    // The first layer reads the input, which stays as it is.
    #expect(blocks.loops == [Schedule.Loop(start: 3, period: 3, count: 4)])
    for function in try schedule(try LoweringModels.decoder(layers: 4)).functions {
      #expect(function.loops.map(\.count) == [4], "\(function.role)")
    }
    #expect(try schedule(try LoweringModels.blocks(1)).functions[0].loops.isEmpty)
  }

  @Test func roundsOfALoopUseTheSameMemoryAndBarriers() throws {
    for model in try models() {
      let schedule = try schedule(model)
      for function in schedule.functions {
        for loop in function.loops {
          for step in loop.steps.dropFirst(loop.period) {
            let first = function.steps[loop.start + (step - loop.start) % loop.period], other = function.steps[step]
            #expect(first.kernel == other.kernel)
            #expect(first.barrier == other.barrier)
            for (a, b) in zip(first.arguments, other.arguments) {
              guard case .buffer(let left, let from) = a, case .buffer(let right, let to) = b else { continue }
              #expect(function.buffers[left].offset == function.buffers[right].offset && from == to)
            }
          }
        }
      }
    }
  }

  @Test func weightsAreStoredOnceAndAligned() throws {
    let schedule = try schedule(try LoweringModels.decoder(layers: 3))
    #expect(Set(schedule.weights.map(\.name)).count == schedule.weights.count)
    #expect(schedule.weights.count == 7)
    var end = 0
    for weight in schedule.weights.sorted(by: { $0.offset < $1.offset }) {
      #expect(weight.offset % 64 == 0 && weight.offset >= end)
      end = weight.offset + weight.byteCount
    }
    #expect(end <= schedule.weightsBytes)
  }

  @Test func statesComeFirstAndAreShared() throws {
    let schedule = try schedule(try LoweringModels.decoder(layers: 2))
    #expect(schedule.states.map(\.name) == ["k0", "v0", "k1", "v1"])
    #expect(schedule.stateBytes == 4 * 32 * 8 * 4)
    for function in schedule.functions {
      for buffer in function.buffers { #expect(buffer.offset >= schedule.stateBytes) }
      for buffer in function.buffers { #expect(buffer.offset + buffer.byteCount <= schedule.arenaBytes) }
    }
    let tokens = schedule.functions.map { function in function.buffers[function.inputs[0].buffer].offset }
    #expect(Set(tokens).count == 1)
  }

  @Test func memoryIsReused() throws {
    // Twelve layers need no more than two.
    let two = try schedule(try LoweringModels.blocks(2)), twelve = try schedule(try LoweringModels.blocks(12))
    #expect(two.arenaBytes == twelve.arenaBytes)
  }

  @Test func viewsCostNothing() throws {
    var builder = GraphBuilder(name: "main", role: "main")
    let x = builder.input("x", TensorType(.f32, [4, 6]))
    let rows = try builder.emit(Slice(axis: 0, start: 1, size: 2), x)
    let flat = try builder.emit(Reshape([12]), rows)
    let turned = try builder.emit(Transpose([1, 0]), try builder.emit(Reshape([1, 12]), flat))
    builder.output("y", try builder.emit(ReLU(), turned))
    var model = Model(name: "views", stage: .transform)
    model.functions = [builder.graph]
    let function = try schedule(model).functions[0]
    #expect(function.steps.count == 1)
    #expect(function.steps[0].arguments.first == .buffer(function.inputs[0].buffer, offset: 24))
  }

  @Test func aScheduleIsPrinted() throws {
    let text = try schedule(try LoweringModels.decoder(layers: 2)).description
    for part in [
      "schedule: 3 functions", "weights\n", "k0: f32[32, 8]", "function @decode", "2 times", "mcc_attention",
    ] {
      #expect(text.contains(part))
    }
  }
}
