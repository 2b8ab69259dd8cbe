from oar_cli import main

main()
