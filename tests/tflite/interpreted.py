"""Outputs of a .tflite file, by the interpreter alone."""

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def interpreted(model, pixels):
    interpreter = Interpreter(model_content=model)
    interpreter.allocate_tensors()
    (image_input,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    outputs = []
    for image in pixels:
        interpreter.set_tensor(image_input["index"], image[np.newaxis].astype("float32"))
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(output["index"])[0])
    return np.array(outputs)
