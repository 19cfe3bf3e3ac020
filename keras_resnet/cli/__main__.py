from keras_resnet.cli import main

main()
